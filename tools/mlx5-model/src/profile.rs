// SPDX-License-Identifier: GPL-2.0

//! Profiles: what the firmware of a function can do.
//!
//! A profile is a TOML file. Capabilities have the names of the reference: they are set through
//! the tables of `prm`, so there is no list of them here. `profiles/cx7.toml` explains itself.

use std::{
    fs,
    path::PathBuf, //
};

use prm::{
    cap::{
        CapType,
        CmdHcaCap,
        FlowTableNicCap,
        VirtioEmulationCap, //
    },
    layout::{
        bits,
        set_bits,
        FieldInfo,
        Info,
        Shape, //
    },
    Layout,
    ObjectType, //
};
use serde::Deserialize;
use toml::{
    Table,
    Value, //
};
use zerocopy::IntoBytes;

use crate::function::DOORBELL_PAGE;

/// The profiles that are part of the program: names and texts.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("cx7", include_str!("../profiles/cx7.toml")),
    ("cx6dx-old", include_str!("../profiles/cx6dx-old.toml")),
    ("minimal", include_str!("../profiles/minimal.toml")),
    ("modern-only", include_str!("../profiles/modern-only.toml")),
    ("legacy-only", include_str!("../profiles/legacy-only.toml")),
];

/// The most pages a profile may ask for at once: what one command can give.
const MAX_PAGES: u32 = 1 << 16;

/// Why a capability cannot be claimed.
const NOT_MODELLED: &str = "the model does not have it";

/// The bits of capabilities that a profile may set, where not every one is modelled: what others
/// say is for a driver to use, and it would only find out there that it is not done.
const MODELLED: &[(&Info, &[(&str, u64)])] = &[
    (
        &CmdHcaCap::INFO,
        &[
            // Groups of capabilities.
            ("hca_cap_2", 0),
            ("event_cap", 0),
            ("debug", 0),
            ("qos", 0),
            ("port_selection_cap", 0),
            // What a driver would make other devices of.
            ("eth_net_offloads", 0),
            ("roce", 0),
            ("roce_rw_supported", 0),
            ("dct", 0),
            ("atomic", 0),
            ("pg", 0),
            ("log_max_srq", 0),
            ("log_max_rq", 0),
            ("log_max_sq", 0),
            // What only a physical function does.
            ("vport_group_manager", 0),
            ("eswitch_manager", 0),
            ("log_max_l2_table", 0),
            ("icm_mng_function_id_mode", 0),
            ("num_total_dynamic_vf_msix", 0),
            // Registers.
            ("qcam_reg", 0),
            ("mcam_reg", 0),
            ("pcam_reg", 0),
            // Commands, variants of commands, and what is between a command and its end.
            ("fast_teardown", 0),
            ("cq_resize", 0),
            ("cq_eq_remap", 0),
            ("mkey_by_name", 0),
            ("flow_counter_bulk_alloc", 0),
            ("disable_local_lb_uc", 0),
            ("disable_local_lb_mc", 0),
            ("log_max_current_uc_list_wr_supported", 0),
            ("cmdif_checksum", 0),
            ("bf", 0),
            // Events and counters.
            ("release_all_pages", 0),
            ("general_notification_event", 0),
            ("pci_sync_for_fw_update_event", 0),
            ("nic_vport_change_event", 0),
            ("vnic_env_int_rq_oob", 0),
            ("eq_overrun_count", 0),
            (
                "general_obj_types",
                (1 << ObjectType::VIRTIO_NET_Q as u16)
                    | (1 << ObjectType::VIRTIO_Q_COUNTERS as u16),
            ),
        ],
    ),
    (
        &VirtioEmulationCap::INFO,
        &[
            ("desc_tunnel_offload_type", 0),
            ("max_tunnel_desc", 0),
            ("virtio_queue_type", 1),
            ("max_emulated_devices", 0),
        ],
    ),
];

/// What is wrong with a profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// There is neither a profile of the program nor a file of that name.
    #[error(
        "there is no profile '{name}'; there are {}, or name a file",
        built_in_names()
    )]
    Unknown {
        /// The name.
        name: String,
    },
    /// A file could not be read.
    #[error("profile {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is no TOML, or has not the parts a profile has.
    #[error("profile '{name}': {error}")]
    Syntax {
        /// The profile.
        name: String,
        /// What and where.
        error: Box<toml::de::Error>,
    },
    /// A value is no good.
    #[error("profile '{name}': {field}: {reason}")]
    Value {
        /// The profile.
        name: String,
        /// Where in it.
        field: String,
        /// Why.
        reason: String,
    },
}

fn built_in_names() -> String {
    let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

/// What the firmware of a function can do, and what it is called.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The name of the profile, or the path of its file.
    pub name: String,
    /// What it is for, in one line.
    pub description: String,
    /// The version of the firmware: major, minor, sub-minor.
    pub firmware: [u16; 3],
    /// The name of the set of parameters of the board, padded with 0.
    pub psid: [u8; 16],
    /// The name of the board.
    pub board: String,
    /// Pages the firmware asks for before capabilities are set.
    pub boot_pages: u32,
    /// Pages it asks for before the function is started.
    pub init_pages: u32,
    /// Whether virtqueues may be legacy ones.
    pub legacy: bool,
    /// The largest values of the general capabilities.
    pub general: CmdHcaCap,
    /// Capabilities of virtqueues.
    pub virtio: VirtioEmulationCap,
    /// Capabilities of flow tables.
    pub flow_table: FlowTableNicCap,
}

/// The file, as serde reads it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    description: String,
    firmware: Firmware,
    virtqueues: Virtqueues,
    cmd_hca_cap: Table,
    virtio_emulation_cap: Table,
    flow_table_nic_cap: Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Firmware {
    version: String,
    psid: String,
    board: String,
    boot_pages: u32,
    init_pages: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Virtqueues {
    legacy: bool,
}

impl Profile {
    /// Finds a profile: one of the program by its name, any other by the path of its file.
    ///
    /// # Errors
    ///
    /// If there is none, or it is not well-formed; the error names the field.
    pub fn load(name: &str) -> Result<Self, ProfileError> {
        if let Some(text) = built_in(name) {
            return Self::parse(name, text);
        }
        let path = PathBuf::from(name);
        if path.components().count() < 2 && path.extension().is_none() {
            return Err(ProfileError::Unknown { name: name.into() });
        }
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(name, &text),
            Err(error) => Err(ProfileError::Unreadable { path, error }),
        }
    }

    /// Reads the text of a profile.
    ///
    /// # Errors
    ///
    /// As [`Profile::load`].
    pub fn parse(name: &str, text: &str) -> Result<Self, ProfileError> {
        let syntax = |error| ProfileError::Syntax {
            name: name.into(),
            error: Box::new(error),
        };
        let value = |(field, reason)| ProfileError::Value {
            name: name.into(),
            field,
            reason,
        };
        let mut table: Table = toml::from_str(text).map_err(syntax)?;
        while let Some(base) = table.remove("base") {
            let base = base
                .as_str()
                .and_then(built_in)
                .ok_or_else(|| value(("base".into(), format!("{base} is not built in"))))?;
            let mut below: Table = toml::from_str(base).map_err(syntax)?;
            merge(&mut below, table);
            table = below;
        }
        let file: File = table.try_into().map_err(syntax)?;
        Self::build(name, file).map_err(value)
    }

    fn build(name: &str, file: File) -> Result<Self, (String, String)> {
        let firmware = version(&file.firmware.version).ok_or_else(|| {
            let wrong = format!("'{}' is not like 28.41.1000", file.firmware.version);
            ("firmware.version".to_string(), wrong)
        })?;
        let mut psid = [0; 16];
        match psid.get_mut(..file.firmware.psid.len()) {
            Some(room) => room.copy_from_slice(file.firmware.psid.as_bytes()),
            None => return Err(("firmware.psid".into(), "more than 16 characters".into())),
        }
        for (field, pages) in [
            ("firmware.boot_pages", file.firmware.boot_pages),
            ("firmware.init_pages", file.firmware.init_pages),
        ] {
            if pages > MAX_PAGES {
                return Err((field.into(), format!("{pages} is more than {MAX_PAGES}")));
            }
        }
        let mut virtio: VirtioEmulationCap = capabilities(&file.virtio_emulation_cap)?;
        let general: CmdHcaCap = capabilities(&file.cmd_hca_cap)?;
        for (field, value) in [
            (
                "virtio_emulation_cap.doorbell_bar_offset",
                virtio.doorbell_bar_offset(),
            ),
            ("cmd_hca_cap.vhca_id", general.vhca_id().into()),
        ] {
            if value != 0 {
                return Err((field.into(), "set by the model".into()));
            }
        }
        virtio.set_doorbell_bar_offset(DOORBELL_PAGE);
        let flow_table: FlowTableNicCap = capabilities(&file.flow_table_nic_cap)?;
        if flow_table.flow_table_properties_nic_transmit().ft_support() {
            let field = "flow_table_nic_cap.flow_table_properties_nic_transmit.ft_support";
            return Err((field.into(), NOT_MODELLED.into()));
        }
        Ok(Self {
            name: name.into(),
            description: file.description,
            firmware,
            psid,
            board: file.firmware.board,
            boot_pages: file.firmware.boot_pages,
            init_pages: file.firmware.init_pages,
            legacy: file.virtqueues.legacy,
            general,
            virtio,
            flow_table,
        })
    }

    /// The largest values of a group of capabilities, if the firmware has the group.
    pub fn capabilities(&self, group: CapType) -> Option<&[u8]> {
        let virtqueues = 1 << ObjectType::VIRTIO_NET_Q as u16;
        match group {
            CapType::GENERAL => Some(self.general.as_bytes()),
            CapType::FLOW_TABLE if self.general.nic_flow_table() => {
                Some(self.flow_table.as_bytes())
            }
            CapType::VDPA_EMULATION if self.general.general_obj_types() & virtqueues != 0 => {
                Some(self.virtio.as_bytes())
            }
            _ => None,
        }
    }
}

fn built_in(name: &str) -> Option<&'static str> {
    let (_, text) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name)?;
    Some(text)
}

/// Puts `over` on top of `below`.
fn merge(below: &mut Table, over: Table) {
    for (key, value) in over {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(over)) => merge(below, over),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

fn version(text: &str) -> Option<[u16; 3]> {
    let parts: Result<Vec<u16>, _> = text.split('.').map(str::parse).collect();
    parts.ok()?.try_into().ok()
}

/// Makes a structure of the fields a table names.
fn capabilities<T: Layout>(table: &Table) -> Result<T, (String, String)> {
    let mut group = T::new();
    set_fields(&T::INFO, group.as_mut_bytes(), table)
        .and_then(|()| check_modelled(&T::INFO, group.as_bytes()))
        .map_err(|(field, reason)| (format!("{}.{field}", T::INFO.name), reason))?;
    Ok(group)
}

/// Refuses capabilities that the model does not have.
///
/// # Errors
///
/// The name of the field, and why.
fn check_modelled(info: &Info, group: &[u8]) -> Result<(), (String, String)> {
    let lists = MODELLED.iter().filter(|(of, _)| of.name == info.name);
    for (name, allowed) in lists.flat_map(|(_, list)| *list) {
        let value = info
            .field(name)
            .map_or(0, |field| bits(group, field.offset, field.width));
        if value & !allowed != 0 {
            let reason = match allowed {
                0 => NOT_MODELLED.to_owned(),
                _ => format!("{NOT_MODELLED} but for the bits {allowed:#x}"),
            };
            return Err(((*name).to_owned(), reason));
        }
    }
    Ok(())
}

/// Sets the fields of a structure that a table names.
///
/// # Errors
///
/// The path of a field that does not exist or does not hold its value, and why.
fn set_fields(info: &Info, bytes: &mut [u8], table: &Table) -> Result<(), (String, String)> {
    for (name, value) in table {
        let wrong = |reason: &str| (name.clone(), reason.to_string());
        let field = info
            .field(name)
            .ok_or_else(|| wrong("there is no such field"))?;
        match (field.shape, value) {
            (Shape::Part(part), Value::Table(table)) => {
                let window = field.offset / 8..(field.offset + field.width) / 8;
                let window = bytes
                    .get_mut(window)
                    .ok_or_else(|| wrong("beyond the structure"))?;
                set_fields(part, window, table)
                    .map_err(|(inner, reason)| (format!("{name}.{inner}"), reason))?;
            }
            (Shape::Bits(_), value) => {
                let bits = number(field, value).map_err(|reason| (name.clone(), reason))?;
                set_bits(bytes, field.offset, field.width, bits);
            }
            _ => return Err(wrong("a table of fields belongs here, or none")),
        }
    }
    Ok(())
}

fn number(field: &FieldInfo, value: &Value) -> Result<u64, String> {
    let number = match value {
        Value::Boolean(set) if field.width == 1 => u64::from(*set),
        Value::Integer(number) => u64::try_from(*number).map_err(|_| "it is below 0")?,
        _ if field.width == 1 => return Err("it is neither true nor false".into()),
        _ => return Err("it is no number".into()),
    };
    if number.checked_shr(field.width as u32).unwrap_or(0) != 0 {
        return Err(format!("{number} does not fit into {} bits", field.width));
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A profile that differs from `cx7` by some lines.
    fn variant(lines: &str) -> Result<Profile, String> {
        Profile::parse("test", &format!("base = \"cx7\"\n{lines}")).map_err(|e| e.to_string())
    }

    #[test]
    fn every_built_in_profile_is_well_formed() {
        for (name, _) in BUILT_IN {
            let profile = Profile::load(name).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(profile.name, *name);
            // What no vDPA device can do without.
            assert!(profile.virtio.eth_frame_offload_type());
            assert_eq!(profile.virtio.event_mode() & 1, 1);
            assert_eq!(profile.virtio.virtio_queue_type(), 1);
            assert_eq!(profile.virtio.doorbell_bar_offset(), DOORBELL_PAGE);
            assert_eq!((profile.general.general_obj_types() >> 13) & 1, 1);
            assert!(profile.capabilities(CapType::VDPA_EMULATION).is_some());
            // What would make other drivers come.
            assert!(!profile.general.eth_net_offloads());
            assert!(!profile.general.roce());
            // Half of the virtqueues receive, and one table must be able to name them all.
            let queues = profile.virtio.max_num_virtio_queues();
            assert!(queues <= 1 << profile.general.log_max_rqt_size());
        }
    }

    #[test]
    fn profiles_differ_in_what_they_are_for() {
        let load = |name| Profile::load(name).unwrap();
        let current = load("cx7");
        assert_eq!(current.firmware, [28, 41, 1000]);
        assert_eq!(current.virtio.event_mode() & 4, 4);
        assert!(current.virtio.freeze_to_rdy_supported() && current.legacy);
        let old = load("cx6dx-old");
        assert_eq!(old.virtio.event_mode() & 4, 0);
        assert!(!old.virtio.freeze_to_rdy_supported());
        let minimal = load("minimal");
        assert_eq!(minimal.virtio.max_num_virtio_queues(), 2);
        assert_eq!(minimal.virtio.device_features_bits_mask(), 0);
        assert_eq!(minimal.general.general_obj_types(), 1 << 13);
        assert!(!minimal.general.umem_uid_0() && minimal.general.log_max_uctx() > 0);
        let modern = load("modern-only");
        assert!(modern.virtio.virtio_version_1_0() && !modern.legacy);
        let legacy = load("legacy-only");
        assert!(!legacy.virtio.virtio_version_1_0() && legacy.legacy);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (lines, named) in [
            (
                "[cmd_hca_cap]\nlog_max_kq = 1",
                "cmd_hca_cap.log_max_kq: there is no such field",
            ),
            (
                "[cmd_hca_cap]\nlog_max_qp = 32",
                "cmd_hca_cap.log_max_qp: 32 does not fit",
            ),
            (
                "[cmd_hca_cap]\nlog_max_qp = -1",
                "cmd_hca_cap.log_max_qp: it is below 0",
            ),
            (
                "[cmd_hca_cap]\nlog_max_qp = true",
                "cmd_hca_cap.log_max_qp: it is no number",
            ),
            (
                "[cmd_hca_cap]\nroce = \"no\"",
                "cmd_hca_cap.roce: it is neither",
            ),
            (
                "[flow_table_nic_cap.flow_table_properties_nic_receive]\nmax_ft_level = 256",
                "flow_table_nic_cap.flow_table_properties_nic_receive.max_ft_level: 256",
            ),
            (
                "[flow_table_nic_cap]\nflow_table_properties_nic_receive = 1",
                "flow_table_properties_nic_receive: a table",
            ),
            (
                "[virtio_emulation_cap]\ndoorbell_bar_offset = 1",
                "virtio_emulation_cap.doorbell_bar_offset: set by",
            ),
            ("[cmd_hca_cap]\nvhca_id = 1", "cmd_hca_cap.vhca_id: set by"),
            ("[firmware]\nversion = \"1.2\"", "firmware.version: '1.2'"),
            ("[firmware]\npsid = \"12345678901234567\"", "firmware.psid"),
            ("[firmware]\nboot_pages = 100000", "firmware.boot_pages"),
            ("[firmware]\nfan = 1", "fan"),
            ("[odp_cap]\nsig = 1", "odp_cap"),
        ] {
            let error = variant(lines).expect_err(lines);
            assert!(error.contains(named), "{lines}: {error}");
        }
        let error = Profile::parse("test", "base = \"cx9\"")
            .unwrap_err()
            .to_string();
        assert!(error.contains("base: \"cx9\""), "{error}");
    }

    #[test]
    fn what_the_model_does_not_have_cannot_be_claimed() {
        for (info, list) in MODELLED {
            for (name, allowed) in *list {
                let field = info
                    .field(name)
                    .unwrap_or_else(|| panic!("no field {name}"));
                let bit = (0..field.width)
                    .find(|bit| (allowed >> bit) & 1 == 0)
                    .unwrap();
                let claim = format!("[{}]\n{name} = {}", info.name, 1u64 << bit);
                let error = variant(&claim).expect_err(name);
                let named = format!("{}.{name}: {NOT_MODELLED}", info.name);
                assert!(error.contains(&named), "{error}");
            }
        }
        let claim = "flow_table_properties_nic_transmit.ft_support";
        let error = variant(&format!("[flow_table_nic_cap]\n{claim} = true")).unwrap_err();
        assert!(
            error.contains(&format!("{claim}: {NOT_MODELLED}")),
            "{error}"
        );
        variant("[cmd_hca_cap]\nroce = false\nforce_teardown = true").unwrap();
    }

    #[test]
    fn a_profile_may_be_a_file() {
        let path = std::env::temp_dir().join(format!("profile-{}.toml", std::process::id()));
        fs::write(&path, "base = \"cx7\"\n[firmware]\nboot_pages = 3\n").unwrap();
        let profile = Profile::load(path.to_str().unwrap());
        fs::remove_file(&path).unwrap();
        let profile = profile.unwrap();
        assert_eq!((profile.boot_pages, profile.init_pages), (3, 300));
        let error = Profile::load(path.to_str().unwrap()).unwrap_err();
        assert!(matches!(error, ProfileError::Unreadable { .. }));
        let error = Profile::load("cx9").unwrap_err().to_string();
        assert!(error.contains("cx7, cx6dx-old"), "{error}");
    }
}
