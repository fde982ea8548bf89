// SPDX-License-Identifier: GPL-2.0

//! Pages of the driver's memory that the firmware keeps its state in.
//!
//! The model needs none. It asks for as many as its profile says and knows each by its address,
//! to find out whether the driver keeps its books.

use std::collections::BTreeSet;

use prm::{
    eq::EventType,
    page::{
        ManagePages,
        ManagePagesIn,
        ManagePagesOut,
        PagesMove,
        PagesWanted,
        QueryPages,
        QueryPagesIn,
        QueryPagesOut, //
    },
    Layout, //
};

use crate::{
    command::{
        handler,
        Execute,
        Handler,
        Reply, //
    },
    eq::Event,
    hca::Hca,
    life::{
        own_function,
        Stage, //
    },
    profile::Profile,
    refusal::Refusal, //
};

/// The size of a page in bytes, whatever the driver's are.
pub const PAGE_SIZE: u64 = 4096;

/// The pages of one function.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    /// The addresses of those the firmware has.
    held: BTreeSet<u64>,
    /// How many it needs before capabilities are set.
    boot: u32,
    /// How many it needs besides before it is started.
    init: u32,
    /// How many it wants besides, or fewer if it is below 0.
    extra: i32,
    /// How often the driver had none to give.
    denied: u32,
}

impl Pages {
    /// The pages of a function that was just enabled.
    pub fn new(profile: &Profile) -> Self {
        Self {
            boot: profile.boot_pages,
            init: profile.init_pages,
            ..Self::default()
        }
    }

    /// How many pages the firmware has.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// How often the driver had no pages to give when it was asked.
    pub fn denied(&self) -> u32 {
        self.denied
    }

    /// Whether the firmware has the page that `addr` is in.
    pub fn holds(&self, addr: u64) -> bool {
        self.held.contains(&(addr & !(PAGE_SIZE - 1)))
    }

    /// Whether the firmware has what it needs to start.
    pub fn are_enough(&self) -> bool {
        self.wanted(PagesWanted::INIT_PAGES) == 0
    }

    /// How many pages are missing; below 0, how many are too many.
    fn wanted(&self, which: PagesWanted) -> i64 {
        let held = self.held.len() as i64;
        let boot = i64::from(self.boot);
        let init = boot + i64::from(self.init);
        match which {
            PagesWanted::BOOT_PAGES => (boot - held).max(0),
            PagesWanted::INIT_PAGES => (init - held).max(0),
            PagesWanted::REGULAR_PAGES => (init + i64::from(self.extra)).max(0) - held,
        }
    }

    /// Has pages the driver gives, all or none.
    ///
    /// # Errors
    ///
    /// If one cannot be, is there already, or is one more than was asked for.
    fn give(&mut self, addrs: &[u64]) -> Result<(), Refusal> {
        if addrs.len() as i64 > self.wanted(PagesWanted::REGULAR_PAGES) {
            return Err(Refusal::PageNotWanted);
        }
        let mut given = BTreeSet::new();
        for addr in addrs {
            // The firmware takes an address of 0 for none.
            if *addr == 0 || addr % PAGE_SIZE != 0 {
                return Err(Refusal::PageNotAligned);
            }
            if self.held.contains(addr) || !given.insert(*addr) {
                return Err(Refusal::PageGivenTwice);
            }
        }
        self.held.append(&mut given);
        Ok(())
    }

    /// Gives pages back, at most `count`: only those that are too many if the others are in use.
    fn take(&mut self, count: u32, in_use: bool) -> Vec<u64> {
        let surplus = (-self.wanted(PagesWanted::REGULAR_PAGES)).max(0);
        let most = match in_use {
            true => surplus.min(count.into()),
            false => count.into(),
        };
        std::iter::from_fn(|| self.held.pop_last())
            .take(most as usize)
            .collect()
    }

    /// Forgets all pages.
    pub fn forget(&mut self) {
        self.held.clear();
    }

    /// Wants more pages, or fewer if `count` is below 0.
    fn want(&mut self, count: i32) {
        self.extra = self.extra.saturating_add(count);
    }

    /// The driver has none to give: what there is must do.
    fn deny(&mut self) {
        self.denied = self.denied.saturating_add(1);
        if self.wanted(PagesWanted::REGULAR_PAGES) > 0 {
            self.extra = 0;
        }
    }
}

impl Hca {
    /// Asks the driver for `count` pages by an event, or to take as many back if it is below 0.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotStarted`] if it would not hear it.
    pub fn request_pages(&mut self, count: i32) -> Result<(), Refusal> {
        let heard = self.platform.events.wanted(EventType::PAGE_REQUEST);
        if self.life.stage != Stage::Running || !heard {
            return Err(Refusal::NotStarted);
        }
        self.pages.want(count);
        self.platform.events.post(Event::PageRequest(count));
        Ok(())
    }
}

impl Execute for QueryPages {
    fn execute(
        hca: &mut Hca,
        input: &QueryPagesIn,
        _: &[u8],
    ) -> Result<Reply<QueryPagesOut>, Refusal> {
        own_function(input.function_id(), input.embedded_cpu_function())?;
        let which = input.op_mod().map_err(|_| Refusal::UnknownVariant)?;
        let mut output = QueryPagesOut::new();
        // In two's complement.
        let wanted = hca.pages.wanted(which);
        output.set_num_pages(wanted.clamp(i32::MIN.into(), i32::MAX.into()) as u32);
        Ok(output.into())
    }
}

impl Execute for ManagePages {
    /// A page that is taken back and not named is lost to the driver.
    fn room(hca: &Hca, input: &ManagePagesIn) -> usize {
        match input.op_mod() {
            Ok(PagesMove::TAKE) => 8 * hca.pages.held().min(input.input_num_entries() as usize),
            _ => 0,
        }
    }

    fn execute(
        hca: &mut Hca,
        input: &ManagePagesIn,
        tail: &[u8],
    ) -> Result<Reply<ManagePagesOut>, Refusal> {
        own_function(input.function_id(), input.embedded_cpu_function())?;
        let count = input.input_num_entries();
        let mut output = ManagePagesOut::new();
        match input.op_mod().map_err(|_| Refusal::UnknownVariant)? {
            PagesMove::CANT_GIVE => {
                hca.pages.deny();
                Ok(output.into())
            }
            PagesMove::GIVE => {
                let addrs = tail.chunks_exact(8).take(count as usize);
                let addrs: Vec<_> = addrs.map(|addr| prm::layout::bits(addr, 0, 64)).collect();
                if addrs.len() < count as usize {
                    return Err(Refusal::ListTooShort);
                }
                hca.pages.give(&addrs)?;
                Ok(output.into())
            }
            PagesMove::TAKE => {
                // Linux takes them back from a function that it has just started, too, when it
                // fails then.
                let in_use = hca.life.stage == Stage::Running && !hca.objects().is_empty();
                let taken = hca.pages.take(count, in_use);
                output.set_output_num_entries(taken.len() as u32);
                let mut reply = Reply::from(output);
                reply.tail = taken.into_iter().flat_map(u64::to_be_bytes).collect();
                Ok(reply)
            }
        }
    }
}

/// The commands of this area.
pub const COMMANDS: &[Handler] = &[handler::<QueryPages>(), handler::<ManagePages>()];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Give(Vec<u64>),
        Take(u32, bool),
        Want(i32),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Few addresses, so that some are given twice; some are no pages.
        let addr =
            prop_oneof![9 => (0u64..40).prop_map(|page| page * PAGE_SIZE), 1 => Just(0x1008)];
        prop_oneof![
            proptest::collection::vec(addr, 0..6).prop_map(Step::Give),
            (0u32..8, any::<bool>()).prop_map(|(count, in_use)| Step::Take(count, in_use)),
            (-6i32..6).prop_map(Step::Want),
        ]
    }

    fn pages(boot: u32, init: u32) -> Pages {
        Pages {
            boot,
            init,
            ..Pages::default()
        }
    }

    proptest! {
        #[test]
        fn books_are_kept(steps in proptest::collection::vec(step(), 0..60)) {
            let mut pages = pages(4, 12);
            let mut books = BTreeSet::new();
            for step in steps {
                let wanted = pages.wanted(PagesWanted::REGULAR_PAGES);
                match step {
                    Step::Give(addrs) => {
                        let mut after = books.clone();
                        let fresh = addrs.iter().all(|addr| after.insert(*addr));
                        let whole = addrs.iter().all(|addr| *addr != 0 && addr % PAGE_SIZE == 0);
                        let asked = addrs.len() as i64 <= wanted;
                        let given = pages.give(&addrs);
                        prop_assert_eq!(given.is_ok(), fresh && whole && asked, "{:?}", given);
                        if given.is_ok() {
                            books = after;
                        }
                    }
                    Step::Take(count, in_use) => {
                        let taken = pages.take(count, in_use);
                        let most = if in_use { (-wanted).max(0) } else { i64::MAX };
                        prop_assert!(taken.len() as i64 <= most.min(count.into()));
                        for addr in taken {
                            prop_assert!(books.remove(&addr), "{:#x} came back twice", addr);
                        }
                    }
                    Step::Want(count) => pages.want(count),
                }
                prop_assert_eq!(&pages.held, &books);
                prop_assert_eq!(pages.are_enough(), books.len() >= 16);
            }
            let back = pages.take(u32::MAX, false);
            prop_assert_eq!(back.len(), books.len());
        }
    }

    #[test]
    fn each_refusal_has_its_reason() {
        let mut pages = pages(1, 2);
        assert_eq!(pages.give(&[0x1000, 0x1000]), Err(Refusal::PageGivenTwice));
        assert_eq!(pages.give(&[0x1000]), Ok(()));
        assert_eq!(pages.give(&[0x1000]), Err(Refusal::PageGivenTwice));
        assert_eq!(pages.give(&[0]), Err(Refusal::PageNotAligned));
        assert_eq!(pages.give(&[0x2800]), Err(Refusal::PageNotAligned));
        let many = [0x2000, 0x3000, 0x4000];
        assert_eq!(pages.give(&many), Err(Refusal::PageNotWanted));
        assert!(!pages.are_enough());
        assert_eq!(pages.give(&many[..2]), Ok(()));
        assert!(pages.are_enough() && pages.holds(0x2fff) && !pages.holds(0x4000));
    }

    #[test]
    fn a_driver_that_has_none_is_not_asked_again() {
        let mut pages = pages(0, 0);
        pages.want(5);
        assert_eq!(pages.wanted(PagesWanted::REGULAR_PAGES), 5);
        pages.deny();
        assert_eq!(pages.wanted(PagesWanted::REGULAR_PAGES), 0);
        assert_eq!(pages.denied(), 1);
    }
}
