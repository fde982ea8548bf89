// SPDX-License-Identifier: GPL-2.0

//! What commands there are.

crate::values! {
    /// A command. The names are those of the C headers, without `MLX5_CMD_OP_`; an underscore
    /// stands before a digit.
    pub enum Opcode: u16 {
        /// Reads capabilities.
        QUERY_HCA_CAP = 0x100,
        /// Reads the board's identity.
        QUERY_ADAPTER = 0x101,
        /// Starts the function.
        INIT_HCA = 0x102,
        /// Ends it.
        TEARDOWN_HCA = 0x103,
        /// Enables the function, before anything else.
        ENABLE_HCA = 0x104,
        /// Disables it, after everything else.
        DISABLE_HCA = 0x105,
        /// Asks how many pages of memory the firmware wants.
        QUERY_PAGES = 0x107,
        /// Gives pages, or takes them back.
        MANAGE_PAGES = 0x108,
        /// Chooses among the capabilities that can be chosen.
        SET_HCA_CAP = 0x109,
        /// Asks for the versions of the interface.
        QUERY_ISSI = 0x10a,
        /// Chooses one.
        SET_ISSI = 0x10b,
        /// Tells the firmware the driver's name.
        SET_DRIVER_VERSION = 0x10d,
        /// Makes a memory key.
        CREATE_MKEY = 0x200,
        /// Reads its context.
        QUERY_MKEY = 0x201,
        /// Takes it away.
        DESTROY_MKEY = 0x202,
        /// Asks for the keys that always exist.
        QUERY_SPECIAL_CONTEXTS = 0x203,
        /// Makes an event queue.
        CREATE_EQ = 0x301,
        /// Takes it away.
        DESTROY_EQ = 0x302,
        /// Reads its context.
        QUERY_EQ = 0x303,
        /// Makes a completion queue.
        CREATE_CQ = 0x400,
        /// Takes it away.
        DESTROY_CQ = 0x401,
        /// Reads its context.
        QUERY_CQ = 0x402,
        /// Changes its moderation.
        MODIFY_CQ = 0x403,
        /// Makes a queue pair.
        CREATE_QP = 0x500,
        /// Takes it away.
        DESTROY_QP = 0x501,
        /// From reset to initialized.
        RST2INIT_QP = 0x502,
        /// From initialized to ready to receive.
        INIT2RTR_QP = 0x503,
        /// From ready to receive to ready to send.
        RTR2RTS_QP = 0x504,
        /// Changes a queue pair that can send.
        RTS2RTS_QP = 0x505,
        /// To error from any state.
        _2ERR_QP = 0x507,
        /// To reset from any state.
        _2RST_QP = 0x50a,
        /// Reads its context.
        QUERY_QP = 0x50b,
        /// Asks for the link.
        QUERY_VPORT_STATE = 0x750,
        /// Sets the administrative state of the link.
        MODIFY_VPORT_STATE = 0x751,
        /// Reads MAC, MTU and filters of the port.
        QUERY_NIC_VPORT_CONTEXT = 0x754,
        /// Changes them.
        MODIFY_NIC_VPORT_CONTEXT = 0x755,
        /// Reads the port's identity.
        QUERY_HCA_VPORT_CONTEXT = 0x762,
        /// Reads diagnostic counters of the port.
        QUERY_VNIC_ENV = 0x76f,
        /// Reads traffic counters of the port.
        QUERY_VPORT_COUNTER = 0x770,
        /// Makes a set of queue counters.
        ALLOC_Q_COUNTER = 0x771,
        /// Takes it away.
        DEALLOC_Q_COUNTER = 0x772,
        /// Reads it.
        QUERY_Q_COUNTER = 0x773,
        /// Makes a protection domain.
        ALLOC_PD = 0x800,
        /// Takes it away.
        DEALLOC_PD = 0x801,
        /// Gives a page of doorbells.
        ALLOC_UAR = 0x802,
        /// Takes it back.
        DEALLOC_UAR = 0x803,
        /// Reads or writes a port register.
        ACCESS_REG = 0x805,
        /// Does nothing.
        NOP = 0x80d,
        /// Makes a transport domain.
        ALLOC_TRANSPORT_DOMAIN = 0x816,
        /// Takes it away.
        DEALLOC_TRANSPORT_DOMAIN = 0x817,
        /// Makes a receive destination.
        CREATE_TIR = 0x900,
        /// Changes it.
        MODIFY_TIR = 0x901,
        /// Takes it away.
        DESTROY_TIR = 0x902,
        /// Reads its context.
        QUERY_TIR = 0x903,
        /// Makes a transmit interface.
        CREATE_TIS = 0x912,
        /// Changes it.
        MODIFY_TIS = 0x913,
        /// Takes it away.
        DESTROY_TIS = 0x914,
        /// Reads its context.
        QUERY_TIS = 0x915,
        /// Makes a table of receive queues.
        CREATE_RQT = 0x916,
        /// Changes its entries.
        MODIFY_RQT = 0x917,
        /// Takes it away.
        DESTROY_RQT = 0x918,
        /// Reads its context.
        QUERY_RQT = 0x919,
        /// Says in which flow table matching begins.
        SET_FLOW_TABLE_ROOT = 0x92f,
        /// Makes a flow table.
        CREATE_FLOW_TABLE = 0x930,
        /// Takes it away.
        DESTROY_FLOW_TABLE = 0x931,
        /// Reads its context.
        QUERY_FLOW_TABLE = 0x932,
        /// Makes a group of entries that match the same fields.
        CREATE_FLOW_GROUP = 0x933,
        /// Takes it away.
        DESTROY_FLOW_GROUP = 0x934,
        /// Reads it.
        QUERY_FLOW_GROUP = 0x935,
        /// Writes an entry of a flow table.
        SET_FLOW_TABLE_ENTRY = 0x936,
        /// Reads it.
        QUERY_FLOW_TABLE_ENTRY = 0x937,
        /// Takes it away.
        DELETE_FLOW_TABLE_ENTRY = 0x938,
        /// Makes a flow counter.
        ALLOC_FLOW_COUNTER = 0x939,
        /// Takes it away.
        DEALLOC_FLOW_COUNTER = 0x93a,
        /// Reads it.
        QUERY_FLOW_COUNTER = 0x93b,
        /// Changes where a flow table leads when nothing matches.
        MODIFY_FLOW_TABLE = 0x93c,
        /// Makes an object of one of the general types.
        CREATE_GENERAL_OBJECT = 0xa00,
        /// Changes it.
        MODIFY_GENERAL_OBJECT = 0xa01,
        /// Reads it.
        QUERY_GENERAL_OBJECT = 0xa02,
        /// Takes it away.
        DESTROY_GENERAL_OBJECT = 0xa03,
        /// Makes a user context.
        CREATE_UCTX = 0xa04,
        /// Takes it away.
        DESTROY_UCTX = 0xa06,
        /// Registers memory for the firmware to keep an object's state in.
        CREATE_UMEM = 0xa08,
        /// Takes it back.
        DESTROY_UMEM = 0xa0a,
    }

    /// A type of general object, for CREATE_GENERAL_OBJECT and its kin.
    pub enum ObjectType: u16 {
        /// A virtqueue of a network device.
        VIRTIO_NET_Q = 0x000d,
        /// Counters of a virtqueue.
        VIRTIO_Q_COUNTERS = 0x001c,
    }
}
