// SPDX-License-Identifier: GPL-2.0

//! Which keys a map needs, if some are there already.
//!
//! A map is reached by a tree of keys. The leaves are *pieces*: keys with a list of pages, for runs
//! that follow each other. The root is a list of parts of pieces, with holes between them:
//!
//! ```text
//!   root    [ part ][ part ][ hole ][ part ][   part   ]
//!              |       |               |         |
//!   pieces  [ . . ][ . . . ]        [ . .x x][ . . . . ]
//! ```
//!
//! A piece leads to what it was made for and cannot be changed; but of what it leads to, the root
//! may name less (the `x` of the drawing). So a map that changes needs a new root, and new pieces
//! for what was not there before. A piece of which less than half is left is made anew: it holds
//! pages that nobody may use any more. It holds the runs that it was made of as a whole, even where
//! it leads to a part of them only, so what counts is how much is left of those as well.
//!
//! Pieces end at multiples of 1 GiB at the latest, so that what changes in one place leaves the rest
//! alone, and so that the length of a part fits into its entry. They are of pages as large as the
//! addresses allow, but what follows each other shares a piece with smaller pages if that costs
//! little.

use super::extent::{
    Run,
    Runs, //
};

/// A key with a list of pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    /// How many bytes it was made for.
    pub(crate) size: u64,
    /// How many of those are in use: 0 if it can go.
    pub(crate) used: u64,
    /// What it holds beside those: of the first run that it was made of what is before, and of the
    /// last one what is behind. Empty where they begin and end together.
    pub(crate) beside: [Run; 2],
}

impl Piece {
    /// The number of bytes that it holds.
    fn held(&self) -> u64 {
        self.beside
            .iter()
            .fold(self.size, |sum, run| sum.saturating_add(run.size))
    }

    /// Whether it may stay where `wanted` is: of what it was made for, and of what it holds, at least
    /// half is wanted.
    fn can_stay(&self, wanted: Runs<'_>) -> bool {
        if self.used < self.size.div_ceil(2) {
            return false;
        }
        let enough = self.held().div_ceil(2);
        let mut left = self.used;
        for run in &self.beside {
            if left >= enough {
                break;
            }
            left = left.saturating_add(wanted.of(run));
        }
        left >= enough
    }
}

/// What is reached through a piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    /// Where it leads.
    pub(crate) run: Run,
    /// The number of the piece.
    pub(crate) piece: usize,
}

/// A piece to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NewPiece {
    /// The first IO virtual address.
    pub(crate) iova: u64,
    /// The number of bytes.
    pub(crate) size: u64,
    /// The first of the runs it leads to.
    pub(crate) first: usize,
    /// How many runs those are. It may begin behind the beginning of the first one, and end before
    /// the end of the last one.
    pub(crate) count: usize,
    /// The logarithm of the size of its pages. The first and the last one may be larger than what
    /// is used of them.
    pub(crate) log_page: u32,
    /// The number of its pages.
    pub(crate) entries: u64,
}

impl NewPiece {
    /// What it is once it is made, where it was planned for `wanted`.
    pub(crate) fn made(&self, wanted: Runs<'_>) -> Piece {
        let runs = wanted.get();
        let last = self.first.saturating_add(self.count).saturating_sub(1);
        let end = self.iova.saturating_add(self.size);
        let beside = [
            runs.get(self.first)
                .map(|run| run.part(run.iova, self.iova)),
            runs.get(last).map(|run| run.part(end, run.end())),
        ];
        Piece {
            size: self.size,
            used: self.size,
            beside: beside.map(|run| run.unwrap_or(Run::NONE)),
        }
    }
}

/// An entry of the root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// The first IO virtual address.
    pub(crate) iova: u64,
    /// The number of bytes.
    pub(crate) size: u32,
    /// The number of the piece; `None` for a hole.
    pub(crate) piece: Option<usize>,
}

/// The logarithm of the largest size of an entry of the root, in bytes.
pub(crate) const LOG_ENTRY: u32 = 30;

/// How large things may be.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// The logarithm of what pieces end at multiples of, in bytes; at most [`LOG_ENTRY`].
    pub(crate) log_piece: u32,
    /// The most pages of a piece, not 0.
    pub(crate) entries: u64,
}

/// Where a plan is written to.
pub(crate) trait Plan {
    /// Why it cannot be.
    type Error;

    /// A piece is to be made. It is numbered in order, after those that were there before.
    ///
    /// # Errors
    ///
    /// Any; the plan ends there.
    fn create(&mut self, piece: NewPiece) -> Result<(), Self::Error>;

    /// Something is reached through a piece, which may be one that is to be made next. In order of
    /// address.
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    fn part(&mut self, part: Part) -> Result<(), Self::Error>;
}

/// Plans what leads to `wanted` where there are `pieces`, through which `parts` are reached, in
/// order of address.
///
/// What is used of a piece is written to it, whether or not the plan is carried out. It takes time
/// in proportion to the parts and the runs, and where pieces hold more than they lead to, to those
/// and the runs in a window.
///
/// # Errors
///
/// Those of `to`.
pub(crate) fn plan<P: Plan>(
    pieces: &mut [Piece],
    parts: &[Part],
    wanted: Runs<'_>,
    limits: &Limits,
    to: &mut P,
) -> Result<(), P::Error> {
    for piece in &mut *pieces {
        piece.used = 0;
    }
    compare(parts, wanted, |_, range, piece| {
        if let Some(piece) = piece.and_then(|piece| pieces.get_mut(piece)) {
            piece.used += range.size;
        }
        Ok(())
    })?;
    for piece in &mut *pieces {
        if !piece.can_stay(wanted) {
            piece.used = 0;
        }
    }

    let mut builder = Builder {
        limits,
        made: pieces.len(),
        open: None,
        part: None,
        to,
    };
    compare(parts, wanted, |index, range, piece| {
        let is_kept = |piece: &usize| pieces.get(*piece).is_some_and(|piece| piece.used != 0);
        match piece.filter(is_kept) {
            Some(piece) => builder.keep(range, piece),
            None => builder.add(index, range),
        }
    })?;
    builder.close()?;
    builder.end_part()
}

/// Calls `f` with all that is wanted, in order: the number of the run it is in, what it is, and by
/// which piece it is reached already.
fn compare<E>(
    parts: &[Part],
    wanted: Runs<'_>,
    mut f: impl FnMut(usize, Run, Option<usize>) -> Result<(), E>,
) -> Result<(), E> {
    let mut parts = parts.iter().peekable();
    for (index, run) in wanted.get().iter().enumerate() {
        let mut iova = run.iova;
        while iova < run.end() {
            while parts.next_if(|part| part.run.end() <= iova).is_some() {}
            let (end, piece) = match parts.peek() {
                Some(part) if part.run.iova <= iova => {
                    let piece = part.run.agrees(run).then_some(part.piece);
                    (part.run.end().min(run.end()), piece)
                }
                Some(part) => (part.run.iova.min(run.end()), None),
                None => (run.end(), None),
            };
            f(index, run.part(iova, end), piece)?;
            iova = end;
        }
    }
    Ok(())
}

/// A piece that may grow yet.
#[derive(Clone, Copy)]
struct Open {
    /// All of it, with the bus address and rights of its beginning.
    run: Run,
    first: usize,
    last: usize,
    /// That of the last run: see [`Run::distance`].
    distance: u64,
    log_page: u32,
}

impl Open {
    fn entries(&self) -> u64 {
        entries(self.run.iova, self.run.end(), self.log_page)
    }
}

/// How many pages of `1 << log_page` bytes the bytes from `iova` to before `end` are in.
fn entries(iova: u64, end: u64, log_page: u32) -> u64 {
    ((end - 1) >> log_page) - (iova >> log_page) + 1
}

struct Builder<'a, P> {
    limits: &'a Limits,
    /// The number of the next piece.
    made: usize,
    open: Option<Open>,
    part: Option<Part>,
    to: &'a mut P,
}

impl<P: Plan> Builder<'_, P> {
    /// `range` is reached through a piece that is there.
    fn keep(&mut self, range: Run, piece: usize) -> Result<(), P::Error> {
        self.close()?;
        self.reach(range, piece)
    }

    /// `range` is to be reached, which is of run `index`.
    fn add(&mut self, index: usize, mut range: Run) -> Result<(), P::Error> {
        loop {
            // A piece ends here at the latest.
            let window = (range.iova | ((1 << self.limits.log_piece) - 1)).saturating_add(1);
            let end = range.end().min(window);
            let open = match self
                .open
                .and_then(|open| self.grown(open, index, &range, end))
            {
                Some(open) => open,
                None => {
                    self.close()?;
                    let log_page = range.log_page().min(self.limits.log_piece);
                    let end = end.min(self.farthest(range.iova, log_page));
                    Open {
                        run: range.part(range.iova, end),
                        first: index,
                        last: index,
                        distance: range.distance(),
                        log_page,
                    }
                }
            };
            self.open = Some(open);
            let end = open.run.end();
            self.reach(range.part(range.iova, end), self.made)?;
            if end == range.end() {
                return Ok(());
            }
            range = range.part(end, range.end());
        }
    }

    /// `open` with the bytes of `range` up to `end` at the most, of run `index`, if they are to be in
    /// one piece.
    fn grown(&self, open: Open, index: usize, range: &Run, end: u64) -> Option<Open> {
        let border = range.iova;
        if border != open.run.end()
            || border % (1 << self.limits.log_piece) == 0
            || range.rights != open.run.rights
        {
            return None;
        }
        if index == open.last {
            let end = end.min(self.farthest(open.run.iova, open.log_page));
            return (end > border).then(|| Open {
                run: Run {
                    size: end - open.run.iova,
                    ..open.run
                },
                ..open
            });
        }
        let alone = range.log_page().min(self.limits.log_piece);
        let mut log_page = open.log_page.min(alone);
        if range.distance() != open.distance {
            // They do not follow each other on the bus, so that no page is in both.
            log_page = log_page.min(border.trailing_zeros());
        }
        let together = entries(open.run.iova, end, log_page);
        let apart = open.entries() + entries(border, end, alone);
        (together <= self.limits.entries && together < 4 * apart).then(|| Open {
            run: Run {
                size: end - open.run.iova,
                ..open.run
            },
            last: index,
            distance: range.distance(),
            log_page,
            ..open
        })
    }

    /// Where a piece that begins at `iova` ends at the latest for its number of pages.
    fn farthest(&self, iova: u64, log_page: u32) -> u64 {
        let page = (iova >> log_page).saturating_add(self.limits.entries);
        page.saturating_mul(1 << log_page)
    }

    /// No more is added to the piece.
    fn close(&mut self) -> Result<(), P::Error> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        self.made += 1;
        self.to.create(NewPiece {
            iova: open.run.iova,
            size: open.run.size,
            first: open.first,
            count: open.last - open.first + 1,
            log_page: open.log_page,
            entries: open.entries(),
        })
    }

    /// `run` is reached through `piece`.
    fn reach(&mut self, run: Run, piece: usize) -> Result<(), P::Error> {
        match &mut self.part {
            Some(part)
                if part.piece == piece && part.run.end() == run.iova && part.run.agrees(&run) =>
            {
                part.run.size += run.size;
                Ok(())
            }
            _ => {
                self.end_part()?;
                self.part = Some(Part { run, piece });
                Ok(())
            }
        }
    }

    fn end_part(&mut self) -> Result<(), P::Error> {
        self.part.take().map_or(Ok(()), |part| self.to.part(part))
    }
}

/// The addresses on the bus of the pages of `piece`, which was planned for `wanted`.
pub(crate) fn pages<'a>(piece: &NewPiece, wanted: Runs<'a>) -> impl Iterator<Item = u64> + 'a {
    let NewPiece {
        iova,
        first,
        log_page,
        ..
    } = *piece;
    let mut runs = wanted.get().iter().skip(first).peekable();
    let number = iova >> log_page;
    (number..number + piece.entries).map_while(move |number| {
        let page = number << log_page;
        let used = page.max(iova);
        while runs.next_if(|run| run.end() <= used).is_some() {}
        // Its beginning may not be in the run, but is so far from it on the bus as well.
        runs.peek().map(|run| page.wrapping_add(run.distance()))
    })
}

/// The entries of the root: what is reached through `parts`, and what is between them.
pub(crate) fn root(parts: &[Part]) -> impl Iterator<Item = Entry> + '_ {
    let mut parts = parts.iter().peekable();
    let mut at = parts.peek().map_or(0, |part| part.run.iova);
    core::iter::from_fn(move || {
        let part = parts.peek()?;
        let (piece, end) = if at < part.run.iova {
            (None, part.run.iova)
        } else {
            let piece = part.piece;
            let mut end = at;
            while let Some(part) = parts.next_if(|part| part.piece == piece && part.run.iova == end)
            {
                end = part.run.end();
            }
            (Some(piece), end)
        };
        // Only holes are larger.
        let size = (end - at).min(1 << LOG_ENTRY);
        let entry = Entry {
            iova: at,
            // CAST: It was just limited.
            size: size as u32,
            piece,
        };
        at += size;
        Some(entry)
    })
}
