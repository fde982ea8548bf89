// SPDX-License-Identifier: GPL-2.0

//! Memory keys: what part of the driver's memory an object may use, at which addresses.

use crate::{
    command::{
        InputHeader,
        OutputHeader, //
    },
    layout::Info,
    Layout,
    Opcode,
    Status, //
};

crate::values! {
    /// How a key translates addresses. The names are those of the C headers, without
    /// `MLX5_MKC_ACCESS_MODE_`.
    pub enum AccessMode: u8 {
        /// Not at all: addresses are bus addresses.
        PA = 0x0,
        /// By a list of pages.
        MTT = 0x1,
        /// By a list of pieces of other keys.
        KLMS = 0x2,
        /// By a list of pieces of other keys, all of one size.
        KSM = 0x3,
    }
}

crate::layout! {
    /// The context of a memory key.
    pub struct MkeyContext = "mkc", 0x40 {
        /// Whether it exists but cannot be used yet.
        free: bool @ 0x01, 1;
        /// The upper three bits of the access mode.
        access_mode_4_2: u8 @ 0x03, 3;
        /// Whether it can be changed by the entries of a send queue.
        umr_en: bool @ 0x10, 1;
        /// Whether atomic operations of others are allowed.
        a: bool @ 0x11, 1;
        /// Whether writes of others are allowed.
        rw: bool @ 0x12, 1;
        /// Whether reads of others are allowed.
        rr: bool @ 0x13, 1;
        /// Whether writes of the function itself are allowed.
        lw: bool @ 0x14, 1;
        /// Whether reads of the function itself are allowed.
        lr: bool @ 0x15, 1;
        /// The lower two bits of the access mode.
        access_mode_1_0: u8 @ 0x16, 2;
        /// The queue pair that alone may use it, or 0xffffff for any.
        qpn: u32 @ 0x20, 24;
        /// The lower 8 bits of the key, which the driver chooses.
        mkey_7_0: u8 @ 0x38, 8;
        /// Whether it is for all addresses, whatever start and length say.
        length64: bool @ 0x60, 1;
        /// Whether signatures are kept.
        bsf_en: bool @ 0x61, 1;
        /// The protection domain.
        pd: u32 @ 0x68, 24;
        /// The first address.
        start_addr: u64 @ 0x80, 64;
        /// The number of bytes.
        len: u64 @ 0xc0, 64;
        /// The size of what signatures need, in units of 16 bytes.
        bsf_octword_size: u32 @ 0x100, 32;
        /// The size of the list it can have, in units of 16 bytes.
        translations_octword_size: u32 @ 0x1a0, 32;
        /// The logarithm of the size of a page, or of a piece, in bytes.
        log_page_size: u8 @ 0x1da, 6;
    }

    /// Input of CREATE_MKEY. The list follows: [`Mtt`]s, or [`Klm`]s.
    pub struct CreateMkeyIn = "create_mkey_in", 0x110 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// Whether the pages of the list say what is allowed.
        pg_access: bool @ 0x60, 1;
        /// Whether the list lies in a umem.
        mkey_umem_valid: bool @ 0x61, 1;
        /// What to make.
        memory_key_mkey_entry: &MkeyContext @ 0x80;
        /// The size of the list that follows, in units of 16 bytes.
        translations_octword_actual_size: u32 @ 0x300, 32;
    }

    /// Output of CREATE_MKEY.
    pub struct CreateMkeyOut = "create_mkey_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The upper 24 bits of the key.
        mkey_index: u32 @ 0x48, 24;
    }

    /// Input of DESTROY_MKEY.
    pub struct DestroyMkeyIn = "destroy_mkey_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The upper 24 bits of the key.
        mkey_index: u32 @ 0x48, 24;
    }

    /// Input of QUERY_MKEY.
    pub struct QueryMkeyIn = "query_mkey_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The upper 24 bits of the key.
        mkey_index: u32 @ 0x48, 24;
        /// Whether pages are to be told with what is allowed.
        pg_access: bool @ 0x60, 1;
    }

    /// Output of QUERY_MKEY.
    pub struct QueryMkeyOut = "query_mkey_out", 0x130 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// How it is.
        memory_key_mkey_entry: &MkeyContext @ 0x80;
        /// The first 16 bytes of the list.
        bsf0_klm0_pas_mtt0_1: [u8; 16] @ 0x880;
        /// The next 16 bytes of the list.
        bsf1_klm1_pas_mtt2_3: [u8; 16] @ 0x900;
    }

    /// Output of QUERY_SPECIAL_CONTEXTS.
    pub struct QuerySpecialContextsOut = "query_special_contexts_out", 0x20 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// A key for dumping; 0 if there is none.
        dump_fill_mkey: u32 @ 0x40, 32;
        /// A key for bus addresses.
        resd_lkey: u32 @ 0x60, 32;
        /// The key of holes.
        null_mkey: u32 @ 0x80, 32;
        /// A key that ends lists of pieces; 0 if there is none.
        terminate_scatter_list_mkey: u32 @ 0xa0, 32;
        /// A key for pieces that repeat; 0 if there is none.
        repeated_mkey: u32 @ 0xc0, 32;
    }

    /// A page of a list. Its address is the whole with the last 8 bits cleared.
    pub struct Mtt = "mtt", 0x8 {
        /// The upper half of the address.
        ptag_63_32: u32 @ 0x00, 32;
        /// The lower half of the address, without its last 8 bits.
        ptag_31_8: u32 @ 0x20, 24;
        /// Whether it may be written.
        wr_en: bool @ 0x3e, 1;
        /// Whether it may be read.
        rd_en: bool @ 0x3f, 1;
    }

    /// A piece of another key.
    pub struct Klm = "mlx5_klm", 0x10 {
        /// The number of bytes; not used where all pieces have one size.
        bcount: u32 @ 0x00, 32;
        /// The other key.
        key: u32 @ 0x20, 32;
        /// Where in the other key it begins.
        va: u64 @ 0x40, 64;
    }
}

crate::commands! {
    /// Makes a memory key.
    pub CreateMkey = CREATE_MKEY: CreateMkeyIn => CreateMkeyOut;
    /// Takes it away.
    pub DestroyMkey = DESTROY_MKEY: DestroyMkeyIn => OutputHeader;
    /// Reads its context.
    pub QueryMkey = QUERY_MKEY: QueryMkeyIn => QueryMkeyOut;
    /// Asks for the keys that always exist.
    pub QuerySpecialContexts = QUERY_SPECIAL_CONTEXTS: InputHeader => QuerySpecialContextsOut;
}

/// The structures of this module.
pub const LAYOUTS: &[Info] = &[
    MkeyContext::INFO,
    CreateMkeyIn::INFO,
    CreateMkeyOut::INFO,
    DestroyMkeyIn::INFO,
    QueryMkeyIn::INFO,
    QueryMkeyOut::INFO,
    QuerySpecialContextsOut::INFO,
    Mtt::INFO,
    Klm::INFO,
];
