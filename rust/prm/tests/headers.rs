// SPDX-License-Identifier: GPL-2.0

//! Compares every structure and every number of the crate with the kernel's C.
//!
//! A C program is made that prints where each field lies and what each enumerator and constant is,
//! compiled against the headers, and run. What C does not have stands on a list, with the reason, and what
//! stands there C must not have: neither a wrong bit nor a misspelt name can hide.
//!
//! `KERNEL_SOURCE` is the kernel's source (default: where the testbed has it).

use std::{
    collections::BTreeSet,
    env,
    fs,
    path::{
        Path,
        PathBuf, //
    },
    process::Command, //
};

use prm::layout::Info;

/// Structures that the headers describe, if at all, in words; and why. Named as in Rust, as they
/// have no other name.
const NO_STRUCTURE: &[(&str, &str)] = &[
    (
        "InputHeader",
        "what all inputs have in common; a macro casts to mlx5_inbox_hdr",
    ),
    (
        "OutputHeader",
        "what all outputs have in common; a macro casts to mlx5_outbox_hdr",
    ),
    ("NopIn", "no driver sends it with a structure"),
    ("CqRecord", "drivers index an array of 32-bit numbers"),
    ("QpRecord", "drivers index an array of 32-bit numbers"),
    (
        "EqDoorbell",
        "drivers write a number put together by shifts",
    ),
    ("CqDoorbell", "drivers write an array of 32-bit numbers"),
];

/// Fields that C lacks: the structure, the field, and why.
const NO_FIELD: &[(&str, &str, &str)] = &[];

/// Structures whose size is not C's, and why.
const OTHER_SIZE: &[(&str, &str)] = &[(
    "query_qp_out",
    "addresses of pages follow, or the extended context: it is the part before",
)];

/// Fields that are the first element of an array in C: the structure, and the field.
const FIRST_OF: &[(&str, &str)] = &[("create_eq_in", "event_bitmask")];

/// Numbers that C calls by a name that is not made of a prefix and ours.
const OTHER_NAME: &[(&str, &str)] = &[];

/// Types of numbers that C has no enumerators for, and why.
const NO_ENUMERATORS: &[(&str, &str)] = &[("RegisterAccess", "only written as 0 and 1")];

/// Constants that are not compared, and why.
const NO_CONSTANT: &[(&str, &str)] = &[
    ("CQ_ARM", "a macro in linux/mlx5/doorbell.h"),
    ("EQ_ARM", "a macro in eq.c of the driver"),
    ("EQ_UPDATE", "two words behind the other doorbell of eq.c"),
];

/// What C code has to find before it includes the headers, in place of the kernel's own.
const PREAMBLE: &str = "
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
typedef uint8_t u8, __u8;
typedef uint16_t u16, __u16, __be16, __sum16;
typedef uint32_t u32, __u32, __be32;
typedef uint64_t u64, __u64, __be64;
typedef int32_t s32;
typedef _Bool bool;
struct ib_grh { u8 bytes[40]; };
#define BIT(n) (1UL << (n))
#define BIT_ULL(n) (1ULL << (n))
#define GENMASK(high, low) ((~0UL >> (63 - (high))) & (~0UL << (low)))
#define PAGE_SIZE 4096
#define PAGE_SHIFT 12
#define __LITTLE_ENDIAN 1234
#define __packed __attribute__((packed))
#define DECLARE_FLEX_ARRAY(type, name) struct { struct { } __empty_##name; type name[]; }
#include <linux/mlx5/device.h>
#include <linux/mlx5/mlx5_ifc_vdpa.h>
";

/// Headers that the headers above include, and that are too much for a program.
const EMPTY: &[&str] = &["linux/types.h", "linux/bitfield.h", "rdma/ib_verbs.h"];

/// Files that a program cannot include at all, and what is taken out of them as text: the structure
/// or enumeration around each of these.
const PIECES: &[(&str, &[&str])] = &[
    (
        "include/linux/mlx5/driver.h",
        &["MLX5_REG_PMTU", "CMD_OWNER_HW"],
    ),
    (
        "include/linux/mlx5/cq.h",
        &["MLX5_CQE_RESP_SEND\t", "MLX5_CQ_MODIFY_PERIOD\t"],
    ),
    (
        "include/linux/mlx5/qp.h",
        &[
            "MLX5_NON_ZERO_RQ\t",
            "struct mlx5_wqe_data_seg {",
            "struct mlx5_klm {",
        ],
    ),
    (
        "drivers/net/ethernet/mellanox/mlx5/core/cmd.c",
        &["CMD_IF_REV", "MLX5_CMD_DELIVERY_STAT_OK"],
    ),
    (
        "drivers/net/ethernet/mellanox/mlx5/core/pagealloc.c",
        &["MLX5_PAGES_GIVE"],
    ),
    (
        "drivers/vdpa/mlx5/net/mlx5_vnet.c",
        &["MLX5_VIRTIO_NET_F_CSUM"],
    ),
];

/// One thing to compare.
struct Item {
    /// What it is, in C.
    what: String,
    /// The C expressions, and what they must be.
    values: Vec<(String, u64)>,
}

fn c_type(info: &Info) -> String {
    if info.name.starts_with("mlx5_") || info.name == "health_buffer" {
        format!("struct {}", info.name)
    } else {
        format!("struct mlx5_ifc_{}_bits", info.name)
    }
}

/// The C header's structures count in bits where they are made of a `u8` for each bit, and in
/// bytes otherwise.
fn unit(info: &Info) -> u64 {
    if c_type(info).ends_with("_bits") {
        1
    } else {
        8
    }
}

fn structures() -> impl Iterator<Item = &'static Info> {
    let all = prm::LAYOUTS.iter().copied().flatten();
    all.filter(|info| !info.name.is_empty())
}

fn fields() -> Vec<Item> {
    let mut items = Vec::new();
    for info in structures() {
        let (c, unit) = (c_type(info), unit(info));
        if !OTHER_SIZE.iter().any(|(name, _)| *name == info.name) {
            items.push(Item {
                what: c.clone(),
                values: vec![(format!("{unit} * sizeof({c})"), 8 * info.bytes as u64)],
            });
        }
        for field in info.fields {
            let name = field.name;
            let first = FIRST_OF.contains(&(info.name, name));
            let element = if first { "[0]" } else { "" };
            items.push(Item {
                what: format!("{c}.{name}"),
                values: vec![
                    (
                        format!("{unit} * offsetof({c}, {name})"),
                        field.offset as u64,
                    ),
                    (
                        format!("{unit} * sizeof((({c} *)0)->{name}{element})"),
                        field.width as u64,
                    ),
                ],
            });
        }
    }
    items
}

/// The types of numbers, each with what stands before its names in C.
macro_rules! enumerators {
    ($($($path:ident)::+ $prefix:literal;)*) => {
        fn enumerators() -> Vec<(&'static str, Item)> {
            let mut items = Vec::new();
            $(
                let name = [$(stringify!($path)),+].into_iter().last().unwrap_or_default();
                for value in prm::$($path)::+::ALL {
                    // A name in Rust cannot begin with a digit.
                    let rest = value.name().trim_start_matches('_');
                    let c = format!("{}{rest}", $prefix);
                    let other = OTHER_NAME.iter().find(|(ours, _)| *ours == c);
                    let c = other.map_or(c.as_str(), |(_, theirs)| theirs).to_string();
                    let values = vec![(c.clone(), *value as u64)];
                    items.push((name, Item { what: c, values }));
                }
            )*
            items
        }
    };
}

enumerators! {
    Opcode "MLX5_CMD_OP_";
    ObjectType "MLX5_OBJ_TYPE_";
    Status "MLX5_CMD_STAT_";
    cap::CapType "MLX5_CAP_";
    cap::CapMode "HCA_CAP_OPMOD_";
    cap::PortType "MLX5_CAP_PORT_TYPE_";
    command::Delivery "MLX5_CMD_DELIVERY_STAT_";
    cq::CqStatus "MLX5_CQC_STATUS_";
    cq::CqState "MLX5_CQC_ST_";
    cq::CqeOpcode "MLX5_CQE_";
    eq::EventType "MLX5_EVENT_TYPE_";
    eq::PortChange "MLX5_PORT_CHANGE_SUBTYPE_";
    eq::EqStatus "MLX5_EQC_STATUS_";
    eq::EqState "MLX5_EQC_ST_";
    flow::FlowTableType "MLX5_FLOW_TABLE_TYPE_";
    flow::FlowTableMissAction "MLX5_FLOW_TABLE_MISS_ACTION_";
    flow::FlowDestinationType "MLX5_IFC_FLOW_DESTINATION_TYPE_";
    hca::TeardownProfile "MLX5_TEARDOWN_HCA_IN_PROFILE_";
    init_segment::NicInterface "MLX5_INITIAL_SEG_NIC_INTERFACE_";
    init_segment::HealthSyndrome "MLX5_INITIAL_SEG_HEALTH_SYNDROME_";
    mkey::AccessMode "MLX5_MKC_ACCESS_MODE_";
    page::PagesMove "MLX5_PAGES_";
    page::PagesWanted "MLX5_QUERY_PAGES_IN_OP_MOD_";
    qp::QpState "MLX5_QPC_STATE_";
    qp::QpService "MLX5_QPC_ST_";
    qp::RqType "MLX5_";
    register::RegisterId "MLX5_REG_";
    rqt::ListQType "MLX5_RQTC_LIST_Q_TYPE_";
    tir::DispType "MLX5_TIRC_DISP_TYPE_";
    tir::RxHashFn "MLX5_RX_HASH_FN_";
    tir::L3ProtType "MLX5_L3_PROT_TYPE_";
    tir::L4ProtType "MLX5_L4_PROT_TYPE_";
    virtq::QueueType "MLX5_VIRTIO_EMULATION_VIRTIO_QUEUE_TYPE_";
    virtq::EventMode "MLX5_VIRTIO_Q_EVENT_MODE_";
    virtq::State "MLX5_VIRTIO_NET_Q_OBJECT_STATE_";
    vport::VportOpMod "MLX5_VPORT_STATE_OP_MOD_";
    vport::VportState "MLX5_QUERY_VPORT_STATE_OUT_STATE_";
    vport::VportAdminState "MLX5_VPORT_ADMIN_STATE_";
    vport::AllowedListType "MLX5_NVPRT_LIST_TYPE_";
}

/// The constants, each with what C has to say of it.
macro_rules! constants {
    ($($($path:ident)::+ = $c:literal;)*) => {
        fn constants() -> Vec<(&'static str, Item)> {
            vec![$({
                let name = [$(stringify!($path)),+].into_iter().last().unwrap_or_default();
                // They are of different types.
                let value = prm::$($path)::+.to_string().parse().unwrap();
                let values = vec![($c.to_string(), value)];
                (name, Item { what: $c.to_string(), values })
            }),*]
        }
    };
}

constants! {
    cap::CAPABILITY_BYTES = "sizeof(union mlx5_ifc_hca_cap_union_bits) / 8";
    cap::virtio_feature::MRG_RXBUF = "MLX5_VIRTIO_NET_F_MRG_RXBUF";
    cap::virtio_feature::HOST_ECN = "MLX5_VIRTIO_NET_F_HOST_ECN";
    cap::virtio_feature::GUEST_ECN = "MLX5_VIRTIO_NET_F_GUEST_ECN";
    cap::virtio_feature::GUEST_TSO6 = "MLX5_VIRTIO_NET_F_GUEST_TSO6";
    cap::virtio_feature::GUEST_TSO4 = "MLX5_VIRTIO_NET_F_GUEST_TSO4";
    cap::virtio_feature::GUEST_CSUM = "MLX5_VIRTIO_NET_F_GUEST_CSUM";
    cap::virtio_feature::CSUM = "MLX5_VIRTIO_NET_F_CSUM";
    cap::virtio_feature::HOST_TSO6 = "MLX5_VIRTIO_NET_F_HOST_TSO6";
    cap::virtio_feature::HOST_TSO4 = "MLX5_VIRTIO_NET_F_HOST_TSO4";
    command::PCI_TRANSPORT = "MLX5_PCI_CMD_XPORT";
    command::OWNED_BY_FIRMWARE = "CMD_OWNER_HW";
    cq::MODIFY_PERIOD = "MLX5_CQ_MODIFY_PERIOD";
    cq::MODIFY_COUNT = "MLX5_CQ_MODIFY_COUNT";
    cq::MODIFY_OVERRUN = "MLX5_CQ_MODIFY_OVERRUN";
    cq::MODIFY_PERIOD_MODE = "MLX5_CQ_MODIFY_PERIOD_MODE";
    flow::MATCH_OUTER_HEADERS = "MLX5_MATCH_OUTER_HEADERS";
    flow::MODIFY_MISS_TABLE_ID = "MLX5_MODIFY_FLOW_TABLE_MISS_TABLE_ID";
    flow::ACTION_ALLOW = "MLX5_FLOW_CONTEXT_ACTION_ALLOW";
    flow::ACTION_DROP = "MLX5_FLOW_CONTEXT_ACTION_DROP";
    flow::ACTION_FWD_DEST = "MLX5_FLOW_CONTEXT_ACTION_FWD_DEST";
    flow::ACTION_COUNT = "MLX5_FLOW_CONTEXT_ACTION_COUNT";
    flow::FTE_ACTION = "BIT(MLX5_SET_FTE_MODIFY_ENABLE_MASK_ACTION)";
    flow::FTE_FLOW_TAG = "BIT(MLX5_SET_FTE_MODIFY_ENABLE_MASK_FLOW_TAG)";
    flow::FTE_DESTINATION_LIST = "BIT(MLX5_SET_FTE_MODIFY_ENABLE_MASK_DESTINATION_LIST)";
    flow::FTE_FLOW_COUNTERS = "BIT(MLX5_SET_FTE_MODIFY_ENABLE_MASK_FLOW_COUNTERS)";
    init_segment::CMDIF_REV = "CMD_IF_REV";
    tir::HASH_SRC_IP = "MLX5_HASH_FIELD_SEL_SRC_IP";
    tir::HASH_DST_IP = "MLX5_HASH_FIELD_SEL_DST_IP";
    tir::HASH_L4_SPORT = "MLX5_HASH_FIELD_SEL_L4_SPORT";
    tir::HASH_L4_DPORT = "MLX5_HASH_FIELD_SEL_L4_DPORT";
    virtq::modify::STATE = "MLX5_VIRTQ_MODIFY_MASK_STATE";
    virtq::modify::DIRTY_BITMAP_PARAMS = "MLX5_VIRTQ_MODIFY_MASK_DIRTY_BITMAP_PARAMS";
    virtq::modify::DIRTY_BITMAP_DUMP_ENABLE = "MLX5_VIRTQ_MODIFY_MASK_DIRTY_BITMAP_DUMP_ENABLE";
    virtq::modify::VIRTIO_Q_ADDRS = "MLX5_VIRTQ_MODIFY_MASK_VIRTIO_Q_ADDRS";
    virtq::modify::VIRTIO_Q_AVAIL_IDX = "MLX5_VIRTQ_MODIFY_MASK_VIRTIO_Q_AVAIL_IDX";
    virtq::modify::VIRTIO_Q_USED_IDX = "MLX5_VIRTQ_MODIFY_MASK_VIRTIO_Q_USED_IDX";
    virtq::modify::QUEUE_VIRTIO_VERSION = "MLX5_VIRTQ_MODIFY_MASK_QUEUE_VIRTIO_VERSION";
    virtq::modify::VIRTIO_Q_MKEY = "MLX5_VIRTQ_MODIFY_MASK_VIRTIO_Q_MKEY";
    virtq::modify::QUEUE_FEATURES = "MLX5_VIRTQ_MODIFY_MASK_QUEUE_FEATURES";
    virtq::modify::DESC_GROUP_MKEY = "MLX5_VIRTQ_MODIFY_MASK_DESC_GROUP_MKEY";
}

/// The kernel's source, and where the program is made.
struct Headers {
    source: PathBuf,
    directory: PathBuf,
}

impl Headers {
    fn new() -> Self {
        let source = env::var_os("KERNEL_SOURCE").unwrap_or_else(|| "/kernel/source".into());
        let source = PathBuf::from(source);
        assert!(
            source.join("include/linux/mlx5/mlx5_ifc.h").exists(),
            "there is no kernel source in {source:?}; name it by KERNEL_SOURCE",
        );
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("headers");
        for header in EMPTY {
            let header = directory.join("empty").join(header);
            fs::create_dir_all(header.parent().unwrap()).unwrap();
            fs::write(header, "").unwrap();
        }
        Self { source, directory }
    }

    /// What there is before the program.
    fn preamble(&self) -> String {
        let mut text = PREAMBLE.to_string();
        for (header, marks) in PIECES {
            let from = fs::read_to_string(self.source.join(header)).unwrap();
            for mark in *marks {
                let at = from
                    .find(mark)
                    .unwrap_or_else(|| panic!("{header} lacks {mark}"));
                let upto = at + mark.len();
                let start = ["\nenum", "\nstruct"]
                    .iter()
                    .filter_map(|word| from[..upto].rfind(word));
                let start = start.max().unwrap();
                let end = at + from[at..].find("\n};").unwrap();
                text += &format!("{}\n}};\n", &from[start..end]);
            }
        }
        text
    }

    fn compiler(&self, source: &Path) -> Command {
        let mut compiler = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()));
        compiler
            // Inline functions of the headers call what belongs to the kernel; they are not run.
            .args(["-w", "-Wno-error=implicit-function-declaration"])
            .args(["-std=gnu11", "-fmax-errors=0", "-I"])
            .arg(self.directory.join("empty"))
            .arg("-I")
            .arg(self.source.join("include"))
            .arg(source)
            .env("LC_ALL", "C");
        compiler
    }

    /// Which of the items C does not have.
    fn missing(&self, name: &str, items: &[Item]) -> BTreeSet<usize> {
        let mut text = self.preamble();
        text += "void program(void)\n{\n";
        let first = 1 + text.matches('\n').count();
        for item in items {
            let sum: Vec<_> = item
                .values
                .iter()
                .map(|(value, _)| value.as_str())
                .collect();
            text += &format!("(void)({});\n", sum.join(" + "));
        }
        text += "}\n";
        let source = self.directory.join(format!("{name}-missing.c"));
        fs::write(&source, text).unwrap();
        let output = self
            .compiler(&source)
            .arg("-fsyntax-only")
            .output()
            .unwrap();
        let mut missing = BTreeSet::new();
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            let Some((place, _)) = line.split_once(": error: ") else {
                continue;
            };
            let mut place = place.rsplit(':').skip(1);
            let number: usize = place.next().unwrap().parse().unwrap();
            let known = place.next().is_some_and(|file| Path::new(file) == source);
            assert!(
                known && number >= first,
                "the headers do not compile: {line}"
            );
            missing.insert(number - first);
        }
        missing
    }

    /// Says for which items C has other values: what, ours, theirs.
    fn different(&self, name: &str, items: &[&Item]) -> Vec<String> {
        let mut text = self.preamble();
        text += "int main(void)\n{\n";
        let values = || {
            items
                .iter()
                .flat_map(|item| item.values.iter().map(move |v| (item, v)))
        };
        for (_, (value, _)) in values() {
            text += &format!("printf(\"%llu\\n\", (unsigned long long)({value}));\n");
        }
        text += "return 0;\n}\n";
        let source = self.directory.join(format!("{name}.c"));
        let program = self.directory.join(name);
        fs::write(&source, text).unwrap();
        let output = self
            .compiler(&source)
            .arg("-o")
            .arg(&program)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "it does not compile: {errors}");
        let output = Command::new(program).output().unwrap();
        let theirs = String::from_utf8(output.stdout).unwrap();
        assert_eq!(theirs.lines().count(), values().count());
        let pairs = values().zip(theirs.lines());
        let different = pairs.filter(|((_, (_, ours)), theirs)| ours.to_string() != **theirs);
        different
            .map(|((item, (value, ours)), theirs)| {
                format!("{}: {value} is {theirs}, not {ours}", item.what)
            })
            .collect()
    }
}

/// Compares what is missing with what may be missing.
fn check_missing(items: &[Item], missing: &BTreeSet<usize>, excused: &BTreeSet<String>) {
    let missing: BTreeSet<_> = missing.iter().map(|at| items[*at].what.clone()).collect();
    let lacking: Vec<_> = missing.difference(excused).collect();
    assert!(lacking.is_empty(), "C does not have {lacking:#?}");
    let there: Vec<_> = excused.difference(&missing).collect();
    assert!(
        there.is_empty(),
        "C does have {there:#?}, or nobody asks for it"
    );
}

#[test]
fn every_field_lies_where_c_has_it() {
    let headers = Headers::new();
    let items = fields();
    let excused = NO_FIELD.iter().map(|(structure, field, _)| {
        let info = structures().find(|info| info.name == *structure);
        let info = info.unwrap_or_else(|| panic!("there is no structure {structure}"));
        format!("{}.{field}", c_type(info))
    });
    let missing = headers.missing("fields", &items);
    check_missing(&items, &missing, &excused.collect());
    let there = items
        .iter()
        .enumerate()
        .filter(|(at, _)| !missing.contains(at));
    let there: Vec<_> = there.map(|(_, item)| item).collect();
    let different = headers.different("fields", &there);
    assert!(different.is_empty(), "{different:#?}");
}

#[test]
fn every_number_is_what_c_has() {
    let headers = Headers::new();
    let items = enumerators().into_iter().chain(constants());
    let items: Vec<_> = items.map(|(_, item)| item).collect();
    let missing = headers.missing("numbers", &items);
    check_missing(&items, &missing, &BTreeSet::new());
    let different = headers.different("numbers", &items.iter().collect::<Vec<_>>());
    assert!(different.is_empty(), "{different:#?}");
}

#[test]
fn every_structure_is_compared() {
    let listed: BTreeSet<_> = structures().map(|info| info.name).collect();
    for (_, text) in sources() {
        for line in text
            .lines()
            .filter_map(|line| line.strip_prefix("    pub struct "))
        {
            let Some((name, after)) = line.split_once(" = \"") else {
                continue;
            };
            let (c, _) = after.split_once('"').unwrap();
            if c.is_empty() {
                let excused = NO_STRUCTURE.iter().any(|(excused, _)| *excused == name);
                assert!(excused, "{name} has no name in C, and nothing says why");
            } else {
                assert!(listed.contains(c), "{name} is in no list of structures");
            }
        }
    }
}

#[test]
fn every_type_of_numbers_is_compared() {
    let compared: BTreeSet<_> = enumerators().into_iter().map(|(name, _)| name).collect();
    for (path, text) in sources() {
        let enums = text
            .lines()
            .filter_map(|line| line.strip_prefix("    pub enum "));
        for name in enums.filter_map(|line| line.split_once(": ").map(|(name, _)| name)) {
            let excused = NO_ENUMERATORS.iter().any(|(excused, _)| *excused == name);
            assert!(
                compared.contains(name) != excused,
                "{}: {name} is either not compared or both that and excused",
                path.display(),
            );
        }
    }
}

#[test]
fn every_constant_is_compared() {
    let compared: BTreeSet<_> = constants().into_iter().map(|(name, _)| name).collect();
    for (path, text) in sources() {
        let lines = text.lines().map(str::trim_start);
        let names = lines.filter_map(|line| line.strip_prefix("pub const ")?.split_once(": "));
        let numbers = names.filter(|(_, type_)| type_.starts_with('u'));
        for (name, _) in numbers {
            let excused = NO_CONSTANT.iter().any(|(excused, _)| *excused == name);
            assert!(
                compared.contains(name) != excused,
                "{}: {name} is either not compared or both that and excused",
                path.display(),
            );
        }
    }
}

/// The sources of the crate.
fn sources() -> Vec<(PathBuf, String)> {
    let mut sources = Vec::new();
    let mut directories = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR"))];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("tests") {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                sources.push((path, text));
            }
        }
    }
    sources
}
