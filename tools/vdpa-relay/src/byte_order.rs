// SPDX-License-Identifier: GPL-2.0

//! How a device is told the byte order of a legacy driver.
//!
//! The kernel has no call for that: vhost-vdpa's `VHOST_SET_VRING_ENDIAN` is refused, or is
//! accepted and not passed on. Devices that serve both orders have an attribute in sysfs.

use std::{
    fs, io,
    path::{
        Path,
        PathBuf, //
    },
};

use virtio::byte_order::ByteOrder;

/// The attribute's file, in the directory of the vDPA device.
const ATTRIBUTE: &str = "legacy_byte_order";

/// Returns what the attribute calls `order`.
pub fn name(order: ByteOrder) -> &'static str {
    match order {
        ByteOrder::Little => "little",
        ByteOrder::Big => "big",
    }
}

/// The byte order that legacy drivers of a device have.
#[derive(Debug)]
pub struct Attribute {
    path: PathBuf,
}

impl Attribute {
    /// Returns that of the device whose directory in sysfs is `device`, if it has one.
    pub fn find(device: &Path) -> Option<Self> {
        let path = device.join(ATTRIBUTE);
        path.exists().then_some(Self { path })
    }

    /// Returns what it is set to.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or has neither word.
    pub fn get(&self) -> io::Result<ByteOrder> {
        match fs::read_to_string(&self.path)?.trim() {
            "little" => Ok(ByteOrder::Little),
            "big" => Ok(ByteOrder::Big),
            other => Err(io::Error::other(format!(
                "{} is '{other}', not 'little' or 'big'",
                self.path.display()
            ))),
        }
    }

    /// Sets it, unless it is as wanted.
    ///
    /// # Errors
    ///
    /// As those of [`Attribute::get`], or if the device does not serve that order.
    pub fn set(&self, order: ByteOrder) -> io::Result<()> {
        if self.get()? != order {
            fs::write(&self.path, name(order))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::tempdir::TempDir;

    use super::*;

    #[test]
    fn what_it_is_set_to() {
        let dir = TempDir::new().unwrap();
        assert!(Attribute::find(dir.as_path()).is_none());
        let path = dir.as_path().join(ATTRIBUTE);
        fs::write(&path, "little\n").unwrap();
        let attribute = Attribute::find(dir.as_path()).unwrap();
        assert_eq!(attribute.get().unwrap(), ByteOrder::Little);
        attribute.set(ByteOrder::Little).unwrap();
        // Not written, since it is so already.
        assert_eq!(fs::read_to_string(&path).unwrap(), "little\n");
        attribute.set(ByteOrder::Big).unwrap();
        assert_eq!(attribute.get().unwrap(), ByteOrder::Big);
        fs::write(&path, "middle\n").unwrap();
        assert!(attribute.set(ByteOrder::Big).is_err());
    }
}
