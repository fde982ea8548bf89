// SPDX-License-Identifier: GPL-2.0

//! Commands: entries, mailboxes, doorbells and registers, of a function in any state.
//!
//! Half of what is done has a shape: a command that the model knows, some of whose fields hold
//! numbers that stand for objects made before, so that it gets past the first check. The other
//! half is whatever the bytes say. Whatever comes, a command that the firmware was given comes
//! back, with a status that is one, and a reason if it was refused.

use std::cell::RefCell;

use mlx5_host::{
    Board,
    Buffer,
    Failure,
    Host, //
};
use mlx5_model::{
    command::find,
    function::BAR_SIZE, //
};
use prm::{
    command::{
        ObjectInputHeader,
        OutputHeader, //
    },
    layout::{
        set_bits,
        Info,
        Shape, //
    },
    Layout,
    ObjectType,
    Opcode,
    Status, //
};

use crate::input::Input;

/// How many things one input does at most.
const STEPS: usize = 64;

/// The bytes of memory that addresses in commands lead to.
const ARENA: u64 = 0x1_0000;

/// The profiles that one input chooses from.
const PROFILES: [&str; 2] = ["cx7", "minimal"];

/// How many numbers of objects are remembered.
const REMEMBERED: usize = 16;

thread_local! {
    /// A function of each profile: making one takes longer than what is done to it. It is reset
    /// after each input, and nothing is left then.
    static DRIVERS: RefCell<Vec<Option<Driver>>> = const { RefCell::new(Vec::new()) };
}

struct Driver {
    host: Host,
    arena: Buffer,
    /// Numbers that commands answered, latest first.
    numbers: Vec<u32>,
}

/// A field that is a number: where it is, and how wide.
#[derive(Clone, Copy)]
struct Place {
    offset: usize,
    width: usize,
}

/// Every number of a structure, those in its parts too.
fn places(info: &Info, base: usize, found: &mut Vec<Place>) {
    for field in info.fields {
        let offset = base + field.offset;
        match field.shape {
            Shape::Bits(_) => found.push(Place {
                offset,
                width: field.width,
            }),
            Shape::Part(part) => places(part, offset, found),
            Shape::Bytes => {}
        }
    }
}

impl Driver {
    fn new(profile: &str) -> Self {
        let board = Board::new(1).expect("there are threads left");
        let host = board.host(profile, 0).expect("there is memory left");
        let arena = host.memory.alloc(ARENA);
        Self {
            host,
            arena,
            numbers: Vec::new(),
        }
    }

    fn address(&self, input: &mut Input<'_>) -> u64 {
        match input.below(16) {
            0 => input.u64(),
            n => self.arena.addr() + 0x1000 * (n as u64 - 1) + 8 * u64::from(input.u8() & 7),
        }
    }

    fn value(&self, input: &mut Input<'_>) -> u64 {
        match input.below(8) {
            0 => input.u64(),
            1 => self.address(input),
            2 => u64::from(input.u16()),
            3 | 4 => u64::from(input.u8()),
            _ => {
                let at = input.below(REMEMBERED);
                self.numbers.get(at).copied().unwrap_or(0).into()
            }
        }
    }

    /// A command of a kind that the model knows, or might.
    fn shaped(&self, input: &mut Input<'_>) -> (Vec<u8>, usize) {
        let opcode = Opcode::ALL[input.below(Opcode::ALL.len())];
        let object = ObjectType::ALL[input.below(ObjectType::ALL.len())];
        let (bytes, room, places) = match find(opcode as u16, object as u16) {
            Ok(handler) => {
                let mut found = Vec::new();
                places(handler.input, 0, &mut found);
                (handler.input.bytes, handler.output.bytes, found)
            }
            Err(_) => (16, 16, Vec::new()),
        };
        let mut command = vec![0; bytes];
        for _ in 0..input.below(16) {
            if places.is_empty() {
                break;
            }
            let place = places[input.below(places.len())];
            set_bits(&mut command, place.offset, place.width, self.value(input));
        }
        match input.below(4) {
            0 => command.extend_from_slice(input.block(600)),
            1 => {
                for _ in 0..input.below(32) {
                    command.extend(self.address(input).to_be_bytes());
                }
            }
            _ => {}
        }
        let name = |info: &Info, name: &str| info.field(name).map_or(0, |field| field.offset);
        let header = &ObjectInputHeader::INFO;
        set_bits(&mut command, name(header, "opcode"), 16, opcode as u64);
        if find(opcode as u16, object as u16).is_ok_and(|handler| handler.object.is_some()) {
            set_bits(&mut command, name(header, "obj_type"), 16, object as u64);
        }
        let room = match input.below(8) {
            0 => input.below(0x2000).max(16),
            _ => room + 8 * input.below(64),
        };
        (command, room)
    }

    /// Looks at what came back.
    fn check(&mut self, result: Result<Vec<u8>, Failure>) {
        let output = match result {
            Ok(output) => output,
            Err(Failure::Delivery(_)) => return,
            Err(failure) => panic!("a command is {failure}"),
        };
        let (header, _) = OutputHeader::split(&output).expect("there was room for a status");
        let status = header.status().expect("the status is one");
        if status != Status::OK {
            assert_ne!(header.syndrome(), 0, "{status:?} without a reason");
            return;
        }
        // The numbers of most objects are here, in 24 bits or in 32.
        let number = prm::layout::bits(&output, 0x40, 32) as u32;
        if number != 0 {
            self.numbers.insert(0, number);
            // Keys are an index and a byte more.
            self.numbers.insert(1, number << 8);
            self.numbers.truncate(REMEMBERED);
        }
    }

    /// Puts shaped commands into slots and rings for all of them at once.
    fn commands(&mut self, input: &mut Input<'_>, count: usize) {
        let mut slots = 0u32;
        for _ in 0..count {
            let slot = input.below(32);
            if slots & (1 << slot) != 0 {
                continue;
            }
            let (command, room) = self.shaped(input);
            self.host.queue().prepare(slot, &command, room);
            slots |= 1 << slot;
        }
        self.host.queue().ring(slots);
        for slot in (0..32).filter(|slot| slots & (1 << slot) != 0) {
            let result = self.host.queue().finish(slot);
            self.check(result);
        }
    }

    /// Has a shaped command executed, past the queue.
    fn command(&mut self, input: &mut Input<'_>) {
        let (command, room) = self.shaped(input);
        let output = self.host.perform(&command, room);
        self.check(Ok(output));
    }

    /// Puts anything into a slot and rings for it.
    fn entry(&mut self, input: &mut Input<'_>) {
        let slot = input.below(32);
        let (command, room) = self.shaped(input);
        let changes: Vec<_> = (0..1 + input.below(4))
            .map(|_| (input.below(64), input.u8()))
            .collect();
        let pointers = [self.address(input), self.address(input)];
        let which = input.u8();
        let queue = self.host.queue();
        queue.prepare(slot, &command, room);
        let mut owned = false;
        queue.change(slot, |entry| {
            if which & 1 != 0 {
                entry[8..16].copy_from_slice(&pointers[0].to_be_bytes());
            }
            if which & 2 != 0 {
                entry[48..56].copy_from_slice(&pointers[1].to_be_bytes());
            }
            for (at, byte) in changes {
                entry[at] = byte;
            }
            owned = entry[63] & 1 != 0;
        });
        queue.ring(1 << slot);
        if !owned {
            // It was not the firmware's, so nobody gives it back.
            queue.forget(slot);
            return;
        }
        let result = queue.finish(slot);
        assert_ne!(result, Err(Failure::Lost), "a command is not given back");
    }

    /// Writes registers.
    fn registers(&mut self, input: &mut Input<'_>) {
        let offset = match input.below(4) {
            0 => input.u64() % (2 * BAR_SIZE),
            1 => u64::from(input.u8()),
            2 => 0x1_0000 + u64::from(input.u16()),
            _ => 0x18_0000 + u64::from(input.u8()),
        };
        let len = 1 + input.below(16);
        let bytes = input.bytes(len);
        self.host.function.bar_write(offset, bytes);
        let mut read = [0; 16];
        self.host.function.bar_read(offset, &mut read);
        // The command queue may have been moved, or closed.
        self.host.renew_queue();
    }

    /// The function is reset: nothing is left.
    fn reset(&mut self) {
        self.host.reset();
        self.host.set_direct(false);
        for (name, count) in self.host.function.report().objects {
            assert_eq!(count, 0, "{name} left after a reset");
        }
    }
}

/// Drives a function as the bytes say.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let how = input.u8();
    DRIVERS.with_borrow_mut(|drivers| {
        drivers.resize_with(PROFILES.len(), || None);
        let which = usize::from(how & 1);
        let driver = drivers[which].get_or_insert_with(|| Driver::new(PROFILES[which]));
        drive(driver, how, &mut input);
    });
}

fn drive(driver: &mut Driver, how: u8, input: &mut Input<'_>) {
    let region = driver.host.memory.region();
    region.fill(driver.arena.addr(), ARENA);
    driver.numbers.clear();
    if how & 2 != 0 {
        driver.host.set_direct(true);
        driver.host.start().expect("a function comes up");
    }
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        match input.below(16) {
            0 => driver.entry(input),
            1 => driver.registers(input),
            2 => {
                let (at, bytes) = (input.u16(), input.block(256));
                let at = u64::from(at).min(ARENA - bytes.len() as u64);
                driver.arena.set(at, bytes);
            }
            3 if input.u8() == 0 => driver.reset(),
            4 => {
                let count = 1 + input.below(8);
                driver.commands(input, count);
            }
            _ => driver.command(input),
        }
    }
    driver.reset();
}
