// SPDX-License-Identifier: GPL-2.0

//! Which device is meant: by the path of vhost-vdpa's, or by the name of the vDPA device.

use std::{
    fs,
    path::{
        Path,
        PathBuf, //
    },
};

use thiserror::Error;

/// Where the vDPA devices are.
pub const DEVICES: &str = "/sys/bus/vdpa/devices";

/// Why there is no such device.
#[derive(Debug, Error)]
pub enum NotFound {
    /// No vDPA device has that name.
    #[error(
        "there is no vDPA device '{0}'; 'vdpa dev show' lists those there are, and a path of one \
         begins with '/'"
    )]
    Device(String),
    /// The device exists and is another driver's.
    #[error(
        "the vDPA device '{0}' is not bound to vhost_vdpa; 'modprobe vhost_vdpa' and 'echo {0} > \
         /sys/bus/vdpa/drivers/vhost_vdpa/bind' do that, once no other driver has it"
    )]
    Driver(String),
}

/// A vhost-vdpa device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The character device.
    pub path: PathBuf,
    /// The vDPA device's directory in sysfs, if it is known.
    pub sysfs: Option<PathBuf>,
}

/// Returns the entry of a vDPA device's directory that is named as vhost-vdpa's character device.
fn character_device(device: &Path) -> Option<String> {
    let entries = fs::read_dir(device).ok()?;
    let mut names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.find(|name| name.starts_with("vhost-vdpa-"))
}

/// Finds the device that `what` means: a path if it has a `/`, or else a name. `devices` is
/// [`DEVICES`], but for tests.
///
/// # Errors
///
/// If it is a name that no device of vhost-vdpa has. Whether there is something at a path shows
/// when it is opened.
pub fn find(what: &str, devices: &Path) -> Result<Place, NotFound> {
    if !what.contains('/') {
        let sysfs = devices.join(what);
        if !sysfs.exists() {
            return Err(NotFound::Device(what.into()));
        }
        let name = character_device(&sysfs).ok_or_else(|| NotFound::Driver(what.into()))?;
        return Ok(Place {
            path: Path::new("/dev").join(name),
            sysfs: Some(sysfs),
        });
    }
    let path = PathBuf::from(what);
    let name = path.file_name().and_then(|name| name.to_str());
    let sysfs = fs::read_dir(devices).ok().and_then(|entries| {
        let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths.find(|device| name.is_some() && character_device(device).as_deref() == name)
    });
    Ok(Place { path, sysfs })
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::tempdir::TempDir;

    use super::*;

    #[test]
    fn by_name_and_by_path() {
        let dir = TempDir::new().unwrap();
        let devices = dir.as_path();
        for name in ["a/vhost-vdpa-3", "b/driver", "c/vhost-vdpa-4"] {
            fs::create_dir_all(devices.join(name)).unwrap();
        }
        let c = Place {
            path: "/dev/vhost-vdpa-4".into(),
            sysfs: Some(devices.join("c")),
        };
        assert_eq!(find("c", devices).unwrap(), c);
        assert_eq!(find("/dev/vhost-vdpa-4", devices).unwrap(), c);
        assert_eq!(find("/dev/vhost-vdpa-5", devices).unwrap().sysfs, None);
        assert!(matches!(find("b", devices), Err(NotFound::Driver(_))));
        assert!(matches!(find("x", devices), Err(NotFound::Device(_))));
    }
}
