// SPDX-License-Identifier: GPL-2.0

//! How a virtqueue tells its driver without a vector of its own: by a message to a queue pair,
//! whose completion is an event.

use std::sync::atomic::{
    fence,
    Ordering, //
};

use prm::{
    cq::{
        CqRecord,
        CqeOpcode,
        CreateCq,
        CreateCqIn,
        DestroyCq, //
    },
    qp::{
        CreateQp,
        CreateQpIn,
        DestroyQp,
        Init2rtrQp,
        Qp2rst,
        QpService,
        RqType,
        Rst2initQp,
        Rtr2rtsQp, //
    },
    Layout, //
};
use zerocopy::IntoBytes;

use crate::{
    eq::EventQueue,
    memory::{
        addresses,
        Buffer, //
    },
    Failure,
    Host, //
};

/// The logarithm of the entries of completion and receive queues.
const LOG_SIZE: u8 = 6;

/// The bytes of a completion, and where in it its owner is.
const CQE: u64 = 64;
const OP_OWN: u64 = 63;

/// Where in their page the doorbell records are.
const CQ_RECORD: u64 = 0;
const QP_RECORD: u64 = 64;

/// Two connected queue pairs, of which one is the firmware's, and what the other completes to.
pub struct Channel {
    eq: EventQueue,
    cqn: u32,
    completions: Buffer,
    records: Buffer,
    _receive: Buffer,
    /// Completions taken.
    consumed: u32,
    arms: u8,
    /// Receive entries ever posted.
    posted: u16,
    qpn: u32,
    firmware_qpn: u32,
}

impl Channel {
    /// The queue pair that a virtqueue is given.
    pub fn firmware_qpn(&self) -> u32 {
        self.firmware_qpn
    }

    fn post(&mut self, count: u16) {
        self.posted = self.posted.wrapping_add(count);
        self.records
            .set(QP_RECORD, &u32::from(self.posted).to_be_bytes());
    }

    /// Takes the completions there are, and returns how many.
    fn take(&mut self) -> u16 {
        let mut count = 0;
        loop {
            let place = u64::from(self.consumed & ((1 << LOG_SIZE) - 1));
            let op_own = self.completions.get(place * CQE + OP_OWN, 1)[0];
            let owner = ((self.consumed >> LOG_SIZE) & 1) as u8;
            if op_own >> 4 == CqeOpcode::INVALID as u8 || op_own & 1 != owner {
                return count;
            }
            assert_eq!(op_own >> 4, CqeOpcode::RESP_SEND as u8);
            fence(Ordering::Acquire);
            self.consumed = self.consumed.wrapping_add(1);
            count += 1;
        }
    }
}

impl Host {
    /// Makes a channel that interrupts by `vector`.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command.
    pub fn create_channel(&mut self, pd: u32, vector: u16) -> Result<Channel, Failure> {
        let uar = self.uar_page();
        let eq = self.create_eq(LOG_SIZE, vector, 0, uar)?;
        let completions = self.memory.alloc(CQE << LOG_SIZE);
        for at in 0..1 << LOG_SIZE {
            let invalid = ((CqeOpcode::INVALID as u8) << 4) | 1;
            completions.set(at * CQE + OP_OWN, &[invalid]);
        }
        let records = self.memory.alloc(1);
        let mut input = CreateCqIn::new();
        input
            .cq_context_mut()
            .set_log_cq_size(LOG_SIZE)
            .set_uar_page(uar)
            .set_c_eqn_or_apu_element(eq.eqn.into())
            .set_dbr_addr(records.addr() + CQ_RECORD);
        let tail = addresses(completions.pages());
        let cqn = self.execute::<CreateCq>(&input, &tail, 0)?.0.cqn();

        let receive = self.memory.alloc(16 << LOG_SIZE);
        let mut input = CreateQpIn::new();
        input
            .qpc_mut()
            .set_st(QpService::RC)
            .set_pm_state(3)
            .set_pd(pd)
            .set_mtu(1)
            .set_uar_page(uar)
            .set_no_sq(true)
            .set_cqn_rcv(cqn)
            .set_log_rq_size(LOG_SIZE)
            .set_rq_type(RqType::NON_ZERO_RQ)
            .set_dbr_addr(records.addr() + QP_RECORD);
        let tail = addresses(receive.pages());
        let qpn = self.execute::<CreateQp>(&input, &tail, 0)?.0.qpn();
        let firmware_qpn = self
            .call::<CreateQp>(|input| {
                input
                    .qpc_mut()
                    .set_st(QpService::RC)
                    .set_pm_state(3)
                    .set_pd(pd)
                    .set_mtu(1)
                    .set_no_sq(true)
                    .set_rq_type(RqType::ZERO_LEN_RQ);
            })?
            .qpn();
        let mut channel = Channel {
            eq,
            cqn,
            completions,
            records,
            _receive: receive,
            consumed: 0,
            arms: 0,
            posted: 0,
            qpn,
            firmware_qpn,
        };
        channel.post(1 << LOG_SIZE);
        self.connect(qpn, firmware_qpn)?;
        self.acknowledge(&mut channel);
        Ok(channel)
    }

    /// Connects two queue pairs, of which the second is to send.
    fn connect(&mut self, qpn: u32, firmware_qpn: u32) -> Result<(), Failure> {
        let ends = [(firmware_qpn, qpn), (qpn, firmware_qpn)];
        for (one, _) in ends {
            self.call::<Qp2rst>(|input| {
                input.set_qpn(one);
            })?;
        }
        for (one, other) in ends {
            self.call::<Rst2initQp>(|input| {
                input.set_qpn(one);
                let context = input.qpc_mut();
                context.set_remote_qpn(other).set_rwe(true);
                context.primary_address_path_mut().set_vhca_port_num(1);
            })?;
        }
        for (one, other) in ends {
            self.call::<Init2rtrQp>(|input| {
                input.set_qpn(one);
                let context = input.qpc_mut();
                context
                    .set_mtu(1)
                    .set_log_msg_max(30)
                    .set_min_rnr_nak(1)
                    .set_remote_qpn(other);
                context.primary_address_path_mut().set_fl(true);
            })?;
        }
        self.call::<Rtr2rtsQp>(|input| {
            input.set_qpn(firmware_qpn);
            let context = input.qpc_mut();
            context.set_retry_count(7).set_rnr_retry(7);
            context.primary_address_path_mut().set_ack_timeout(14);
        })
        .map(drop)
    }

    /// Takes the events and completions of a channel, posts receive entries for those to come and
    /// asks to be interrupted for the next.
    pub fn acknowledge(&mut self, channel: &mut Channel) {
        while channel.eq.take().is_some() {
            channel.arms = channel.arms.wrapping_add(1);
        }
        let count = channel.take();
        let mut record = CqRecord::new();
        record
            .set_consumer_counter(channel.consumed & 0xff_ffff)
            .set_arm_sn(channel.arms & 3)
            .set_arm_counter(channel.consumed & 0xff_ffff);
        channel.records.set(CQ_RECORD, record.as_bytes());
        channel.post(count);
        self.memory.region().fence();
        self.arm_cq(channel.cqn, channel.arms, channel.consumed);
        self.arm(&channel.eq);
    }

    /// Takes a channel away.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command.
    pub fn destroy_channel(&mut self, channel: Channel) -> Result<(), Failure> {
        for qpn in [channel.qpn, channel.firmware_qpn] {
            self.call::<DestroyQp>(|input| {
                input.set_qpn(qpn);
            })?;
        }
        self.call::<DestroyCq>(|input| {
            input.set_cqn(channel.cqn);
        })?;
        self.destroy_eq(channel.eq)
    }
}
