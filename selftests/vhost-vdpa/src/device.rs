// SPDX-License-Identifier: GPL-2.0
//! A vDPA device and the calls of its vhost-vdpa file, one method each.

use std::fs::{File, OpenOptions};
use std::io::{self, Error, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::ktap::Stop;
use crate::uapi::{self, Config, IovaRange, Message, VringAddr, VringFile, VringState};

const BUS: &str = "/sys/bus/vdpa";

/// Devices that tests let go of, for who asks for the same: to make one takes
/// longer than most tests do, and nothing of a driver is left behind a reset.
static SPARE: Mutex<Vec<Device>> = Mutex::new(Vec::new());

/// A device of the management device under test, bound to vhost-vdpa;
/// deleted when dropped, or kept for another test.
pub(crate) struct Device {
    name: String,
    /// What it was made by, if it is to be kept.
    kept: Option<Vec<String>>,
}

/// Has no device be kept any more.
pub(crate) fn drop_spare() {
    let mut spare = std::mem::take(&mut *SPARE.lock().unwrap_or_else(PoisonError::into_inner));
    for device in &mut spare {
        device.kept = None;
    }
}

/// Runs the vdpa tool.
fn vdpa(words: &[&str]) -> Result<String, Stop> {
    let output = Command::new("vdpa").args(words).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Stop::Fail(format!(
        "vdpa {}: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}

/// The management device that makes the `number`th device of a test: of those
/// named, with commas between them, the `number`th, and again the first after
/// the last.
pub(crate) fn maker(mgmtdevs: &str, number: usize) -> &str {
    mgmtdevs.split(',').cycle().nth(number).unwrap_or(mgmtdevs)
}

impl Device {
    /// Makes the device `name`; `attributes` are words of `vdpa dev add`.
    pub(crate) fn new(mgmtdev: &str, name: &str, attributes: &[&str]) -> Result<Self, Stop> {
        std::fs::write(format!("{BUS}/drivers_autoprobe"), "0")?;
        let mut words = vec!["dev", "add", "name", name, "mgmtdev", mgmtdev];
        words.extend_from_slice(attributes);
        vdpa(&words)?;
        let device = Device {
            name: name.into(),
            kept: None,
        };
        std::fs::write(format!("{BUS}/drivers/vhost_vdpa/bind"), name)?;
        Ok(device)
    }

    /// The same, or one like it that another test has let go of; it is kept, too.
    pub(crate) fn kept(mgmtdev: &str, name: &str, attributes: &[&str]) -> Result<Self, Stop> {
        let asked: Vec<String> = [mgmtdev, name]
            .iter()
            .chain(attributes)
            .map(|&word| word.into())
            .collect();
        {
            let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
            let found = spare
                .iter()
                .position(|device| device.kept.as_ref() == Some(&asked));
            if let Some(index) = found {
                return Ok(spare.swap_remove(index));
            }
        }
        // They may have the name, or the only place there is.
        drop_spare();
        let mut device = Device::new(mgmtdev, name, attributes)?;
        device.kept = Some(asked);
        Ok(device)
    }

    /// A file in the device's directory in sysfs.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("{BUS}/devices/{}/{name}", self.name))
    }

    /// What an attribute of the device says.
    pub(crate) fn attribute(&self, name: &str) -> io::Result<String> {
        Ok(std::fs::read_to_string(self.file(name))?.trim_end().into())
    }

    /// Writes an attribute of the device, which no other test gets then.
    pub(crate) fn set_attribute(&mut self, name: &str, word: &str) -> io::Result<()> {
        self.kept = None;
        std::fs::write(self.file(name), word)
    }

    /// The device file of vhost-vdpa.
    pub(crate) fn path(&self) -> Result<PathBuf, Stop> {
        for entry in std::fs::read_dir(format!("{BUS}/devices/{}", self.name))? {
            let name = entry?.file_name();
            if name.to_string_lossy().starts_with("vhost-vdpa-") {
                return Ok(Path::new("/dev").join(name));
            }
        }
        Err(Stop::Fail(format!("{} has no vhost-vdpa file", self.name)))
    }

    /// Opens the device file.  udev makes it in its own time.
    pub(crate) fn open(&self) -> Result<Vhost, Stop> {
        let path = self.path()?;
        let end = Instant::now() + Duration::from_secs(10);
        while !path.exists() && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
        Ok(Vhost::open(&path)?)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.kept.is_some() && !thread::panicking() {
            let device = Device {
                name: std::mem::take(&mut self.name),
                kept: self.kept.take(),
            };
            SPARE
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(device);
            return;
        }
        if let Err(error) = vdpa(&["dev", "del", &self.name]) {
            println!("# {error}");
        }
    }
}

/// An event counter of the kernel.
pub(crate) struct Event(OwnedFd);

impl Event {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: No memory is passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: The call has just returned it, nobody else has it.
        Ok(Event(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Signals it.
    pub(crate) fn signal(&self) -> io::Result<()> {
        (&File::from(self.0.try_clone()?)).write_all(&1u64.to_ne_bytes())
    }

    /// Waits until it is signalled and clears it; false after `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let mut poll = libc::pollfd {
            fd: self.fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: One valid `pollfd` is passed.
        if unsafe { libc::poll(&raw mut poll, 1, timeout) } < 1 {
            return false;
        }
        let mut count = [0u8; 8];
        // SAFETY: Eight bytes may be written there.
        unsafe { libc::read(self.fd(), count.as_mut_ptr().cast(), 8) == 8 }
    }
}

/// An open vhost-vdpa device.
pub(crate) struct Vhost {
    file: File,
}

impl Vhost {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Vhost { file })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Any ioctl; `T` must be what `request` reads and writes.
    fn call<T>(&self, request: u64, argument: &mut T) -> io::Result<()> {
        // SAFETY: The argument has the type that belongs to the request, as
        // every caller in this file sees to.
        let result = unsafe { libc::ioctl(self.fd(), request, &raw mut *argument) };
        if result < 0 {
            return Err(Error::last_os_error());
        }
        Ok(())
    }

    /// An ioctl with an address at which nothing is mapped.
    pub(crate) fn call_bad_address(&self, request: u64) -> io::Result<()> {
        // SAFETY: Nothing is mapped there, so that nothing can be overwritten.
        let result = unsafe { libc::ioctl(self.fd(), request, 8usize) };
        if result < 0 {
            return Err(Error::last_os_error());
        }
        Ok(())
    }

    /// An ioctl that takes `struct vhost_vring_state` or something shorter.
    pub(crate) fn vring(&self, request: u64, index: u32, num: u32) -> io::Result<u32> {
        let mut state = VringState { index, num };
        self.call(request, &mut state)?;
        Ok(state.num)
    }

    /// An ioctl that takes `struct vhost_vring_file`.
    pub(crate) fn vring_file(&self, request: u64, index: u32, fd: RawFd) -> io::Result<()> {
        self.call(request, &mut VringFile { index, fd })
    }

    pub(crate) fn set_vring_addr(&self, mut address: VringAddr) -> io::Result<()> {
        self.call(uapi::SET_VRING_ADDR, &mut address)
    }

    /// An ioctl that gives or takes a u64.
    pub(crate) fn word(&self, request: u64, mut value: u64) -> io::Result<u64> {
        self.call(request, &mut value)?;
        Ok(value)
    }

    /// An ioctl that gives or takes a u32 or an int.
    pub(crate) fn half(&self, request: u64, mut value: u32) -> io::Result<u32> {
        self.call(request, &mut value)?;
        Ok(value)
    }

    /// An ioctl without an argument.
    pub(crate) fn plain(&self, request: u64) -> io::Result<()> {
        self.call(request, &mut 0u64)
    }

    pub(crate) fn features(&self) -> io::Result<u64> {
        self.word(uapi::GET_FEATURES, 0)
    }

    pub(crate) fn set_features(&self, features: u64) -> io::Result<()> {
        self.word(uapi::SET_FEATURES, features).map(drop)
    }

    pub(crate) fn backend_features(&self) -> io::Result<u64> {
        self.word(uapi::GET_BACKEND_FEATURES, 0)
    }

    pub(crate) fn set_backend_features(&self, features: u64) -> io::Result<()> {
        self.word(uapi::SET_BACKEND_FEATURES, features).map(drop)
    }

    pub(crate) fn set_owner(&self) -> io::Result<()> {
        self.plain(uapi::SET_OWNER)
    }

    pub(crate) fn status(&self) -> io::Result<u8> {
        let mut status = 0u8;
        self.call(uapi::GET_STATUS, &mut status)?;
        Ok(status)
    }

    pub(crate) fn set_status(&self, mut status: u8) -> io::Result<()> {
        self.call(uapi::SET_STATUS, &mut status)
    }

    /// Sets bits of the status besides those that are there.
    pub(crate) fn add_status(&self, bits: u8) -> io::Result<()> {
        self.set_status(self.status()? | bits)
    }

    pub(crate) fn reset(&self) -> io::Result<()> {
        self.set_status(0)
    }

    pub(crate) fn queues(&self) -> io::Result<u32> {
        self.half(uapi::GET_VQS_COUNT, 0)
    }

    pub(crate) fn queue_max(&self) -> io::Result<u16> {
        let mut max = 0u16;
        self.call(uapi::GET_VRING_NUM, &mut max)?;
        Ok(max)
    }

    pub(crate) fn iova_range(&self) -> io::Result<IovaRange> {
        let mut range = IovaRange::default();
        self.call(uapi::GET_IOVA_RANGE, &mut range)?;
        Ok(range)
    }

    pub(crate) fn config_size(&self) -> io::Result<u32> {
        self.half(uapi::GET_CONFIG_SIZE, 0)
    }

    /// Reads the configuration space; `length` may be a lie.
    pub(crate) fn config_call(&self, offset: u32, length: u32) -> io::Result<[u8; 256]> {
        let mut config = Config {
            offset,
            length,
            bytes: [0; 256],
        };
        self.call(uapi::GET_CONFIG, &mut config)?;
        Ok(config.bytes)
    }

    pub(crate) fn config(&self, offset: u32, length: usize) -> io::Result<Vec<u8>> {
        assert!(length <= 256);
        Ok(self.config_call(offset, length as u32)?[..length].to_vec())
    }

    pub(crate) fn set_config(&self, offset: u32, bytes: &[u8]) -> io::Result<()> {
        let mut config = Config {
            offset,
            length: bytes.len() as u32,
            bytes: [0; 256],
        };
        config.bytes[..bytes.len()].copy_from_slice(bytes);
        self.call(uapi::SET_CONFIG, &mut config)
    }

    /// Sends a message about the IOTLB.
    pub(crate) fn message(&self, message: &Message) -> io::Result<()> {
        // SAFETY: `Message` is plain data without padding bytes, so all of it
        // is initialized.
        let bytes = unsafe {
            std::slice::from_raw_parts((&raw const *message).cast::<u8>(), size_of::<Message>())
        };
        (&self.file).write(bytes).map(drop)
    }

    /// Sends raw bytes where a message belongs.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.file).write(bytes)
    }

    /// Maps `size` bytes at `uaddr` of this process to `iova`.
    pub(crate) fn map(
        &self,
        asid: u32,
        iova: u64,
        size: u64,
        uaddr: u64,
        perm: u8,
    ) -> io::Result<()> {
        self.message(&Message {
            version: uapi::MSG_V2,
            asid,
            iova,
            size,
            uaddr,
            perm,
            kind: uapi::UPDATE,
            padding: [0; 38],
        })
    }

    /// A message of another kind.
    pub(crate) fn iotlb(&self, asid: u32, kind: u8, iova: u64, size: u64) -> io::Result<()> {
        self.message(&Message {
            version: uapi::MSG_V2,
            asid,
            iova,
            size,
            uaddr: 0,
            perm: 0,
            kind,
            padding: [0; 38],
        })
    }
}
