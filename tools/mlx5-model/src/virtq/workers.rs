// SPDX-License-Identifier: GPL-2.0

//! The threads that move traffic.
//!
//! Tasks stand in one line. A worker takes the first, lets it have a turn, and sends it to the end
//! of the line if it has more to do: so all get on, and none is with two workers at once.

use std::{
    collections::VecDeque,
    io,
    sync::{
        atomic::{
            AtomicU8,
            Ordering, //
        },
        Arc, //
    },
    thread, //
};

use parking_lot::{
    Condvar,
    Mutex, //
};

/// What a worker is given to do.
pub trait Task: Send + Sync {
    /// Does a bounded part of what there is to do, and returns whether there is more.
    fn turn(&self) -> bool;

    /// Where the task stands.
    fn place(&self) -> &Place;
}

/// Nothing to do.
const IDLE: u8 = 0;
/// In the line.
const WAITING: u8 = 1;
/// With a worker.
const RUNNING: u8 = 2;
/// With a worker, and scheduled since it began its turn.
const AGAIN: u8 = 3;

/// Where a task stands.
#[derive(Debug, Default)]
pub struct Place(AtomicU8);

impl Place {
    fn change(&self, next: impl Fn(u8) -> Option<u8>) -> Result<u8, u8> {
        self.0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, next)
    }
}

#[derive(Default)]
struct Line {
    tasks: VecDeque<Arc<dyn Task>>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    line: Mutex<Line>,
    /// Told when a task joins the line, or when it closes.
    changed: Condvar,
}

impl Shared {
    fn add(&self, task: Arc<dyn Task>) {
        self.line.lock().tasks.push_back(task);
        self.changed.notify_one();
    }

    fn next(&self) -> Option<Arc<dyn Task>> {
        let mut line = self.line.lock();
        loop {
            if line.closed {
                return None;
            }
            if let Some(task) = line.tasks.pop_front() {
                return Some(task);
            }
            self.changed.wait(&mut line);
        }
    }

    fn work(&self) {
        while let Some(task) = self.next() {
            task.place().0.store(RUNNING, Ordering::SeqCst);
            let more = task.turn();
            let next = task.place().change(|state| match state {
                RUNNING if !more => Some(IDLE),
                _ => Some(WAITING),
            });
            if more || next == Ok(AGAIN) {
                self.add(task);
            }
        }
    }
}

/// The threads that move traffic. They end when this is dropped.
pub struct Workers {
    shared: Arc<Shared>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads, at least one.
    ///
    /// # Errors
    ///
    /// If the system has no thread to give.
    pub fn new(count: usize) -> io::Result<Self> {
        let mut workers = Self {
            shared: Arc::default(),
            threads: Vec::new(),
        };
        for number in 0..count.max(1) {
            let shared = workers.shared.clone();
            let thread = thread::Builder::new()
                .name(format!("worker {number}"))
                .spawn(move || shared.work())?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Has `task` run a turn that begins after this call, as soon as a worker is free.
    pub fn schedule<T: Task + 'static>(&self, task: &Arc<T>) {
        let before = task.place().change(|state| match state {
            IDLE => Some(WAITING),
            RUNNING => Some(AGAIN),
            _ => None,
        });
        if before == Ok(IDLE) {
            self.shared.add(task.clone());
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let tasks = {
            let mut line = self.shared.line.lock();
            line.closed = true;
            std::mem::take(&mut line.tasks)
        };
        self.shared.changed.notify_all();
        drop(tasks);
        for thread in self.threads.drain(..) {
            // The last task may be dropped by a worker, and the last user of the workers with it.
            if thread.thread().id() != thread::current().id() {
                // A worker that panicked has said so itself.
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::AtomicUsize,
        mpsc, //
    };

    use super::*;

    struct Counting {
        place: Place,
        left: AtomicUsize,
        inside: AtomicUsize,
        said: mpsc::Sender<&'static str>,
        name: &'static str,
    }

    impl Counting {
        fn new(name: &'static str, turns: usize, said: &mpsc::Sender<&'static str>) -> Arc<Self> {
            Arc::new(Self {
                place: Place::default(),
                left: AtomicUsize::new(turns),
                inside: AtomicUsize::new(0),
                said: said.clone(),
                name,
            })
        }
    }

    impl Task for Counting {
        fn turn(&self) -> bool {
            assert_eq!(self.inside.fetch_add(1, Ordering::SeqCst), 0);
            let _ = self.said.send(self.name);
            let before = self
                .left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                    left.checked_sub(1)
                });
            self.inside.fetch_sub(1, Ordering::SeqCst);
            before.is_ok_and(|left| left > 1)
        }

        fn place(&self) -> &Place {
            &self.place
        }
    }

    #[test]
    fn tasks_take_turns() {
        let (said, heard) = mpsc::channel();
        let workers = Workers::new(1).unwrap();
        let tasks = [
            Counting::new("a", 100, &said),
            Counting::new("b", 100, &said),
        ];
        for task in &tasks {
            workers.schedule(task);
        }
        let all: Vec<_> = heard.iter().take(200).collect();
        // "a" may have had a few turns before "b" came.
        let first = all.iter().position(|name| *name == "b").unwrap();
        let both = &all[first..first + 2 * (100 - first)];
        assert!(both.chunks(2).all(|pair| pair == ["b", "a"]), "{both:?}");
    }

    #[test]
    fn a_task_runs_once_at_a_time_and_no_schedule_is_lost() {
        let (said, heard) = mpsc::channel();
        let workers = Workers::new(3).unwrap();
        for _ in 0..1000 {
            let task = Counting::new("a", 1, &said);
            workers.schedule(&task);
            heard.recv().unwrap();
            // It has begun its turn, so it must have another one, now or later.
            workers.schedule(&task);
            heard.recv().unwrap();
        }
    }

    #[test]
    fn the_end_comes_with_tasks_in_line() {
        let (said, _heard) = mpsc::channel();
        let workers = Workers::new(2).unwrap();
        for _ in 0..10 {
            workers.schedule(&Counting::new("endless", usize::MAX, &said));
        }
        drop(workers);
    }
}
