// SPDX-License-Identifier: GPL-2.0

//! Queue pairs, as far as the events of virtqueues need them.
//!
//! In QP event mode a virtqueue has two queue pairs, connected to each other inside the function:
//!
//! ```text
//!   virtqueue ── send_event ──> firmware's pair ── message ──> driver's pair
//!                               (no queues)                    (receive queue)
//!                                                                   │
//!                 driver <── event queue <── completion queue <─────┘
//! ```
//!
//! A message has no payload: it takes one entry of the receive queue and completes it. The driver
//! posts entries by counting up its doorbell record, and nothing else. If there is none, the message
//! and all behind it are held, as a sender does that tries again for ever: for as long as the driver's
//! pair says (`min_rnr_nak`), whatever is posted meanwhile. Behind that the record is looked at with
//! the next message and when the driver arms the completion queue, before which it posts.
//! A pair that is put into error keeps the receive entries it has: they are not flushed.

use std::{
    sync::{
        Arc,
        Weak, //
    },
    thread,
    time::{
        Duration,
        Instant, //
    },
};

use parking_lot::Mutex;
use prm::{
    cap::CmdHcaCap,
    command::OutputHeader,
    cq::{
        Cqe,
        CqeOpcode, //
    },
    qp::{
        CreateQp,
        CreateQpIn,
        CreateQpOut,
        DestroyQp,
        DestroyQpIn,
        Init2rtrQp,
        Init2rtrQpIn,
        Init2rtrQpOut,
        Qp2err,
        Qp2errIn,
        Qp2rst,
        Qp2rstIn,
        QpContext,
        QpService,
        QpState,
        QueryQp,
        QueryQpIn,
        QueryQpOut,
        RqType,
        Rst2initQp,
        Rst2initQpIn,
        Rst2initQpOut,
        Rtr2rtsQp,
        Rtr2rtsQpIn,
        Rtr2rtsQpOut,
        Rts2rtsQp,
        Rts2rtsQpIn,
        Rts2rtsQpOut, //
    },
    Layout, //
};

use crate::{
    buffer::Buffer,
    command::{
        handler,
        Execute,
        Handler,
        Reply, //
    },
    cq::{
        Cq,
        RECORD, //
    },
    eq::Event,
    fault::EventPart,
    hca::Hca,
    object::{
        self,
        Handle,
        Shared,
        Table, //
    },
    pd::Pd,
    platform::Platform,
    refusal::Refusal,
    uar::Uar,
    umem::Umem, //
};

/// The smallest receive entry in bytes.
const STRIDE: u64 = 16;

/// A receive queue.
#[derive(Debug)]
struct ReceiveQueue {
    buffer: Buffer,
    /// What it lies in, if not in pages of its own.
    _umem: Option<Handle<Umem>>,
    log_size: u8,
    /// The address of the doorbell record.
    record: u64,
    cq: Handle<Cq>,
}

impl ReceiveQueue {
    fn new(hca: &Hca, input: &CreateQpIn, tail: &[u8]) -> Result<Self, Refusal> {
        let context = input.qpc();
        if context.dbr_umem_valid() {
            return Err(Refusal::NotOffered);
        }
        if context.dbr_addr() % RECORD != 0 {
            return Err(Refusal::PageNotAligned);
        }
        let log_size = context.log_rq_size();
        if log_size > hca.platform.profile.general.log_max_qp_sz() {
            return Err(Refusal::QueueTooLarge);
        }
        let size = STRIDE << (context.log_rq_stride() + log_size);
        let (buffer, umem) = if input.wq_umem_valid() {
            let umem = hca.umems.hold(input.wq_umem_id())?;
            (
                umem.buffer().part(input.wq_umem_offset(), size)?,
                Some(umem),
            )
        } else {
            let start = 64 * u64::from(context.page_offset());
            (
                Buffer::new(tail, context.log_page_size(), start, size)?,
                None,
            )
        };
        Ok(Self {
            buffer,
            _umem: umem,
            log_size,
            record: context.dbr_addr(),
            cq: hca.platform.cqs.hold(context.cqn_rcv())?,
        })
    }

    /// The receive entries the driver has ever posted.
    fn posted(&self, platform: &Platform) -> Option<u16> {
        let record = platform.memory.snapshot().load::<u32>(self.record);
        // The counter is the lower half.
        record.ok().map(|record| u32::from_be(record) as u16)
    }
}

/// A queue pair.
#[derive(Debug)]
pub struct Qp {
    number: u32,
    platform: Weak<Platform>,
    _pd: Handle<Pd>,
    _uar: Option<Handle<Uar>>,
    rq: Option<ReceiveQueue>,
    inner: Mutex<Inner>,
}

/// Where a queue pair stands.
#[derive(Debug)]
struct Inner {
    context: QpContext,
    state: QpState,
    /// The receive entries taken.
    taken: u16,
    /// Messages for which there was no receive entry.
    held: u32,
    /// When the first of them is tried again.
    again: Option<Instant>,
}

/// How long a sender waits for a receive entry that is not there, by the code that the receiver has
/// for it (InfiniBand, "RNR NAK Timer Field"): 10 microseconds with 1, 655.36 milliseconds with 0.
fn patience(code: u8) -> Duration {
    let units = match code {
        0 => 1 << 16,
        1 => 1,
        code => (2 + u32::from(code % 2)) << (code / 2 - 1),
    };
    10 * units * Duration::from_micros(1)
}

impl Qp {
    /// Takes one receive entry of the queue pair this one is connected to, and completes it: how
    /// a virtqueue tells its driver in QP event mode. Lost if they are not connected.
    ///
    /// May be called from any thread, with any lock held but those of the queues.
    pub fn send_event(&self, platform: &Platform) {
        let remote = {
            let inner = self.inner.lock();
            if inner.state != QpState::RTS {
                return;
            }
            inner.context.remote_qpn()
        };
        let peer = match platform.qps.read().get(remote) {
            Ok(peer) => peer.clone(),
            Err(_) => return,
        };
        let mut inner = peer.inner.lock();
        if inner.context.remote_qpn() == self.number {
            inner.held = inner.held.saturating_add(1);
            peer.receive(platform, &mut inner);
        }
    }

    /// The queue pair this one is connected to.
    fn peer(&self, platform: &Platform) -> Option<Arc<Self>> {
        let remote = self.inner.lock().context.remote_qpn();
        platform.qps.read().get(remote).ok().cloned()
    }

    /// Puts the queue pair this one is connected to into error, or the completion queue of that, and
    /// tells the driver. Returns whether it is there, and was not in error yet.
    pub(crate) fn fail_peer(&self, platform: &Platform, part: EventPart) -> bool {
        let Some(peer) = self.peer(platform) else {
            return false;
        };
        let mut inner = peer.inner.lock();
        match (part, &peer.rq) {
            (EventPart::Completions, Some(rq)) => rq.cq.overrun(platform),
            (EventPart::Pair, Some(_)) if inner.state != QpState::ERR => {
                peer.fail(platform, &mut inner);
                true
            }
            _ => false,
        }
    }

    fn fail(&self, platform: &Platform, inner: &mut Inner) {
        inner.state = QpState::ERR;
        inner.held = 0;
        platform.events.post(Event::QpError { qpn: self.number });
    }

    /// The driver may have posted receive entries.
    pub(crate) fn retry(self: &Arc<Self>, platform: &Platform) {
        let mut inner = self.inner.lock();
        match inner.again {
            Some(again) if Instant::now() < again => self.retry_at(again),
            _ => self.receive(platform, &mut inner),
        }
    }

    /// Tries once more later.
    fn retry_at(self: &Arc<Self>, again: Instant) {
        let pair = Arc::downgrade(self);
        let wait = again.saturating_duration_since(Instant::now());
        let retry = move || {
            thread::sleep(wait);
            let pair = pair.upgrade();
            let platform = pair.as_ref().and_then(|pair| pair.platform.upgrade());
            if let (Some(pair), Some(platform)) = (pair, platform) {
                pair.retry(&platform);
            }
        };
        // If there can be no thread, the next message finds it.
        let _ = thread::Builder::new()
            .name("queue pair".to_owned())
            .spawn(retry);
    }

    /// Completes receive entries for the messages held, as many as there are.
    fn receive(self: &Arc<Self>, platform: &Platform, inner: &mut Inner) {
        let (Some(rq), QpState::RTR | QpState::RTS) = (&self.rq, inner.state) else {
            inner.held = 0;
            return;
        };
        let now = Instant::now();
        if inner.again.is_some_and(|again| now < again) || self.take(platform, rq, inner) {
            return;
        }
        platform.journal.stats.waits.add(1);
        let again = now + patience(inner.context.min_rnr_nak());
        inner.again = Some(again);
        rq.cq.wait(self.number, Arc::downgrade(self));
        // Entries may have been posted, and the queue armed, before it knew who waits.
        if rq.posted(platform) != Some(inner.taken) {
            self.retry_at(again);
        }
    }

    /// Completes receive entries for the messages held. Returns whether none is left over.
    fn take(&self, platform: &Platform, rq: &ReceiveQueue, inner: &mut Inner) -> bool {
        let Some(posted) = rq.posted(platform) else {
            self.fail(platform, inner);
            return true;
        };
        // The queue holds the newest entries, however many were posted. Linux counts on from an
        // earlier life of the queue when it makes virtqueues again for another memory map.
        let size = 1 << rq.log_size;
        if posted.wrapping_sub(inner.taken) > size {
            inner.taken = posted.wrapping_sub(size);
        }
        let there = posted.wrapping_sub(inner.taken);
        for _ in 0..inner.held.min(there.into()) {
            let opcode = platform.faults.opcode(rq.cq.vector());
            let opcode = opcode.unwrap_or(CqeOpcode::RESP_SEND as u8);
            let mut entry = Cqe::new();
            entry
                .set_op_own(opcode << 4)
                .set_sop_drop_qpn(self.number)
                .set_wqe_counter(inner.taken);
            inner.taken = inner.taken.wrapping_add(1);
            inner.held -= 1;
            rq.cq.complete(platform, entry);
        }
        inner.held == 0
    }

    /// Goes from one state to another, with what of the context that change takes over.
    fn change(
        &self,
        from: QpState,
        to: QpState,
        take: impl FnOnce(&mut QpContext),
    ) -> Result<(), Refusal> {
        let mut inner = self.inner.lock();
        if inner.state != from {
            return Err(Refusal::QpState);
        }
        inner.state = to;
        take(&mut inner.context);
        Ok(())
    }

    /// Goes to a state that can be reached from all.
    fn stop(&self, to: QpState) {
        let mut inner = self.inner.lock();
        inner.state = to;
        inner.held = 0;
        inner.again = None;
        if to == QpState::RST {
            inner.taken = 0;
            inner.context.set_remote_qpn(0);
        }
    }

    fn query(&self, platform: &Platform) -> QueryQpOut {
        let inner = self.inner.lock();
        let mut output = QueryQpOut::new();
        let context = output.qpc_mut();
        *context = inner.context.clone();
        let posted = self.rq.as_ref().and_then(|rq| rq.posted(platform));
        context
            .set_state(inner.state)
            .set_hw_rq_counter(inner.taken.into())
            .set_sw_rq_counter(posted.unwrap_or(0).into());
        output
    }
}

/// The queue pairs of a function.
pub type Qps = Shared<Qp>;

/// Makes a function's queue pairs, none yet.
pub fn qps(general: &CmdHcaCap) -> Qps {
    let count = object::count(general.log_max_qp());
    // Those before have a meaning of their own in networks.
    Table::new("queue pair", 0x40, count).into()
}

impl Qps {
    /// Takes every queue pair away, used or not: it sends and receives nothing any more.
    pub fn clear(&self) {
        self.clear_with(|pair| pair.stop(QpState::RST));
    }

    fn get(&self, qpn: u32) -> Result<Arc<Qp>, Refusal> {
        self.read().get(qpn).cloned()
    }
}

impl Execute for CreateQp {
    fn execute(
        hca: &mut Hca,
        input: &CreateQpIn,
        tail: &[u8],
    ) -> Result<Reply<CreateQpOut>, Refusal> {
        let context = input.qpc();
        let connected = context.st() == Ok(QpService::RC);
        if !connected || !context.no_sq() || input.input_qpn() != 0 {
            return Err(Refusal::NotOffered);
        }
        let rq = match context.rq_type() {
            Ok(RqType::NON_ZERO_RQ) => Some(ReceiveQueue::new(hca, input, tail)?),
            Ok(RqType::ZERO_LEN_RQ) => None,
            _ => return Err(Refusal::NotOffered),
        };
        // What has no send queue needs no page of doorbells.
        let uar = match context.uar_page() {
            0 => None,
            page => Some(hca.uars.hold(page)?),
        };
        let pd = hca.pds.hold(context.pd())?;
        let platform = Arc::downgrade(&hca.platform);
        let qpn = hca.platform.qps.write().add_with(|number| Qp {
            number,
            platform: platform.clone(),
            _pd: pd,
            _uar: uar,
            rq,
            inner: Mutex::new(Inner {
                context: context.clone(),
                state: QpState::RST,
                taken: 0,
                held: 0,
                again: None,
            }),
        })?;
        let mut output = CreateQpOut::new();
        output.set_qpn(qpn);
        Ok(output.into())
    }
}

impl Execute for DestroyQp {
    fn execute(
        hca: &mut Hca,
        input: &DestroyQpIn,
        _: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        let pair = hca.platform.qps.write().remove(input.qpn())?;
        // Who found it before it went is done with it now.
        pair.stop(QpState::RST);
        Ok(Reply::done())
    }
}

impl Execute for QueryQp {
    fn execute(hca: &mut Hca, input: &QueryQpIn, _: &[u8]) -> Result<Reply<QueryQpOut>, Refusal> {
        let pair = hca.platform.qps.get(input.qpn())?;
        Ok(Reply {
            output: pair.query(&hca.platform),
            tail: pair.rq.as_ref().map_or(Vec::new(), |rq| rq.buffer.list()),
        })
    }
}

impl Execute for Rst2initQp {
    fn execute(
        hca: &mut Hca,
        input: &Rst2initQpIn,
        _: &[u8],
    ) -> Result<Reply<Rst2initQpOut>, Refusal> {
        let from = input.qpc();
        let pair = hca.platform.qps.get(input.qpn())?;
        pair.change(QpState::RST, QpState::INIT, |context| {
            context
                .set_rre(from.rre())
                .set_rwe(from.rwe())
                .set_rae(from.rae());
            *context.primary_address_path_mut() = from.primary_address_path().clone();
        })?;
        Ok(Reply::done())
    }
}

impl Execute for Init2rtrQp {
    fn execute(
        hca: &mut Hca,
        input: &Init2rtrQpIn,
        _: &[u8],
    ) -> Result<Reply<Init2rtrQpOut>, Refusal> {
        let from = input.qpc();
        let pair = hca.platform.qps.get(input.qpn())?;
        // There is no way out of the function.
        if !from.primary_address_path().fl() {
            return Err(Refusal::NotOffered);
        }
        pair.change(QpState::INIT, QpState::RTR, |context| {
            context
                .set_mtu(from.mtu())
                .set_log_msg_max(from.log_msg_max())
                .set_remote_qpn(from.remote_qpn())
                .set_next_rcv_psn(from.next_rcv_psn())
                .set_min_rnr_nak(from.min_rnr_nak());
            *context.primary_address_path_mut() = from.primary_address_path().clone();
        })?;
        Ok(Reply::done())
    }
}

impl Execute for Rtr2rtsQp {
    fn execute(
        hca: &mut Hca,
        input: &Rtr2rtsQpIn,
        _: &[u8],
    ) -> Result<Reply<Rtr2rtsQpOut>, Refusal> {
        let from = input.qpc();
        let pair = hca.platform.qps.get(input.qpn())?;
        pair.change(QpState::RTR, QpState::RTS, |context| {
            let timeout = from.primary_address_path().ack_timeout();
            context
                .set_retry_count(from.retry_count())
                .set_rnr_retry(from.rnr_retry())
                .set_next_send_psn(from.next_send_psn())
                .primary_address_path_mut()
                .set_ack_timeout(timeout);
        })?;
        Ok(Reply::done())
    }
}

impl Execute for Rts2rtsQp {
    fn execute(
        hca: &mut Hca,
        input: &Rts2rtsQpIn,
        _: &[u8],
    ) -> Result<Reply<Rts2rtsQpOut>, Refusal> {
        // What could be changed is of no consequence inside one function.
        let pair = hca.platform.qps.get(input.qpn())?;
        pair.change(QpState::RTS, QpState::RTS, |_| ())?;
        Ok(Reply::done())
    }
}

impl Execute for Qp2err {
    fn execute(hca: &mut Hca, input: &Qp2errIn, _: &[u8]) -> Result<Reply<OutputHeader>, Refusal> {
        hca.platform.qps.get(input.qpn())?.stop(QpState::ERR);
        Ok(Reply::done())
    }
}

impl Execute for Qp2rst {
    fn execute(hca: &mut Hca, input: &Qp2rstIn, _: &[u8]) -> Result<Reply<OutputHeader>, Refusal> {
        hca.platform.qps.get(input.qpn())?.stop(QpState::RST);
        Ok(Reply::done())
    }
}

/// The commands of this area.
pub const COMMANDS: &[Handler] = &[
    handler::<CreateQp>(),
    handler::<DestroyQp>(),
    handler::<QueryQp>(),
    handler::<Rst2initQp>(),
    handler::<Init2rtrQp>(),
    handler::<Rtr2rtsQp>(),
    handler::<Rts2rtsQp>(),
    handler::<Qp2err>(),
    handler::<Qp2rst>(),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_as_the_standard_has_it() {
        let expected = [
            65536, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768,
            1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152,
        ];
        for (code, units) in (0..).zip(expected) {
            assert_eq!(patience(code), Duration::from_micros(10 * units), "{code}");
        }
    }
}
