// SPDX-License-Identifier: GPL-2.0

//! The vfio-user server of one function.

use std::{
    fs::File,
    io,
    os::{
        fd::OwnedFd,
        unix::net::UnixListener, //
    },
    panic::{
        catch_unwind,
        AssertUnwindSafe, //
    },
    sync::Arc, //
};

use tracing::{
    debug,
    error,
    info,
    warn, //
};
use vfio_bindings::bindings::vfio::{
    vfio_region_info,
    VFIO_IRQ_INFO_EVENTFD,
    VFIO_PCI_BAR0_REGION_INDEX,
    VFIO_PCI_CONFIG_REGION_INDEX,
    VFIO_PCI_MSIX_IRQ_INDEX,
    VFIO_PCI_NUM_IRQS,
    VFIO_PCI_NUM_REGIONS,
    VFIO_REGION_INFO_FLAG_READ,
    VFIO_REGION_INFO_FLAG_WRITE, //
};
use vfio_user::{
    DmaMapFlags,
    DmaUnmapFlags,
    IrqInfo,
    ServerBackend,
    ServerRegion, //
};
use vm_memory::Permissions;

use super::{
    config_space::{
        self,
        Effect, //
    },
    ConfigSpace,
    Device,
    Msix, //
};
use crate::{
    function::BAR_SIZE,
    memory::DmaSpace,
    platform::Interrupts,
    socket::Patience, //
};

/// The vfio-user server of one function.
pub struct Server {
    name: String,
    protocol: vfio_user::Server,
    backend: Backend,
}

impl Server {
    /// Makes the server of `device`, called `name` in messages and `serial` in its configuration
    /// space, for clients of `listener`. They give it `memory`, and connect the vectors of `msix`.
    pub fn new(
        name: &str,
        serial: u64,
        listener: UnixListener,
        device: Arc<dyn Device>,
        memory: Arc<DmaSpace>,
        msix: Arc<Msix>,
    ) -> Self {
        memory.set_master(false);
        let vectors = msix.count();
        Self {
            name: name.to_owned(),
            protocol: vfio_user::Server::from_owned_fd(
                OwnedFd::from(listener),
                true,
                irqs(vectors.into()),
                regions(),
            ),
            backend: Backend {
                name: name.to_owned(),
                config: ConfigSpace::new(vectors, serial),
                device,
                memory,
                msix,
            },
        }
    }

    /// Serves one client after the other. A client that leaves takes its memory and eventfds with
    /// it, and leaves the device as after a reset.
    ///
    /// # Errors
    ///
    /// Returns only if no more client can come.
    pub fn serve(mut self) -> Result<(), vfio_user::Error> {
        let mut patience = Patience::default();
        loop {
            // A panic has been reported when it gets here. What it left undone is undone by the
            // reset; locks it held are taken regardless.
            let result = catch_unwind(AssertUnwindSafe(|| self.protocol.run(&mut self.backend)));
            if let Ok(Err(vfio_user::Error::SocketAccept(e))) = &result {
                if patience.wait(&self.name, e) {
                    continue;
                }
            }
            patience.end();
            self.backend.disconnect();
            match result {
                Ok(Ok(())) => info!("{}: the client is gone", self.name),
                Ok(Err(e @ vfio_user::Error::SocketAccept(_))) => return Err(e),
                Ok(Err(e)) => warn!("{}: the connection broke: {e}", self.name),
                Err(_) => error!("{}: the connection is given up", self.name),
            }
        }
    }
}

fn irqs(vectors: u32) -> Vec<IrqInfo> {
    (0..VFIO_PCI_NUM_IRQS)
        .map(|index| {
            let there = index == VFIO_PCI_MSIX_IRQ_INDEX;
            IrqInfo {
                index,
                flags: if there { VFIO_IRQ_INFO_EVENTFD } else { 0 },
                count: if there { vectors } else { 0 },
            }
        })
        .collect()
}

fn regions() -> Vec<ServerRegion> {
    (0..VFIO_PCI_NUM_REGIONS)
        .map(|index| {
            let size = match index {
                VFIO_PCI_BAR0_REGION_INDEX => BAR_SIZE,
                VFIO_PCI_CONFIG_REGION_INDEX => config_space::SIZE as u64,
                _ => 0,
            };
            ServerRegion {
                region_info: vfio_region_info {
                    argsz: u32::try_from(size_of::<vfio_region_info>()).unwrap_or(0),
                    flags: if size == 0 {
                        0
                    } else {
                        VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE
                    },
                    index,
                    size,
                    ..Default::default()
                },
                sparse_areas: Vec::new(),
                mmap_fd: None,
            }
        })
        .collect()
}

/// What messages of a client do.
struct Backend {
    name: String,
    config: ConfigSpace,
    device: Arc<dyn Device>,
    memory: Arc<DmaSpace>,
    msix: Arc<Msix>,
}

impl Backend {
    /// The device goes first: it may use the memory and the vectors until it is reset.
    fn disconnect(&mut self) {
        self.device.reset();
        self.config.reset();
        self.follow_command();
        self.msix.reset();
        self.memory.clear();
    }

    /// A reset that the driver asked for: the client's memory and eventfds stay.
    fn reset_device(&mut self) {
        self.device.reset();
        self.config.reset();
        self.follow_command();
        self.msix.enable(false);
    }

    /// Does what the command register of the configuration space says: a driver that is done with
    /// the device takes the bus from it, and relies on its memory not being touched any more.
    fn follow_command(&self) {
        self.memory.set_master(self.config.is_bus_master());
    }

    /// Reports what is refused, because the client is told little.
    fn refuse<T>(&self, what: io::Error) -> io::Result<T> {
        warn!("{}: refused: {what}", self.name);
        Err(what)
    }

    /// Returns an error if the `len` bytes at `offset` are not within the region.
    fn check(&self, region: u32, offset: u64, len: usize) -> io::Result<()> {
        let size = match region {
            VFIO_PCI_BAR0_REGION_INDEX => BAR_SIZE,
            VFIO_PCI_CONFIG_REGION_INDEX => config_space::SIZE as u64,
            _ => 0,
        };
        if offset
            .checked_add(len as u64)
            .is_some_and(|end| end <= size)
        {
            return Ok(());
        }
        self.refuse(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("region {region} has no {len} bytes at {offset:#x}"),
        ))
    }
}

impl ServerBackend for Backend {
    fn region_read(&mut self, region: u32, offset: u64, to: &mut [u8]) -> io::Result<()> {
        self.check(region, offset, to.len())?;
        if region == VFIO_PCI_CONFIG_REGION_INDEX {
            self.config.read(offset, to);
        } else {
            self.device.bar_read(offset, to);
        }
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, from: &[u8]) -> io::Result<()> {
        self.check(region, offset, from.len())?;
        if region == VFIO_PCI_CONFIG_REGION_INDEX {
            match self.config.write(offset, from) {
                Some(Effect::Msix(on)) => self.msix.enable(on),
                Some(Effect::Reset) => self.reset_device(),
                None => {}
            }
            self.follow_command();
        } else {
            self.device.bar_write(offset, from);
        }
        Ok(())
    }

    fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        offset: u64,
        address: u64,
        size: u64,
        fd: Option<File>,
    ) -> io::Result<()> {
        let Some(file) = fd else {
            debug!(
                "{}: {size:#x} bytes at {address:#x} are out of reach",
                self.name
            );
            return Ok(());
        };
        let mut permissions = Permissions::No;
        if flags.contains(DmaMapFlags::READ) {
            permissions = permissions | Permissions::Read;
        }
        if flags.contains(DmaMapFlags::WRITE) {
            permissions = permissions | Permissions::Write;
        }
        debug!(
            "{}: {size:#x} bytes at {address:#x}: {permissions:?}",
            self.name
        );
        self.memory
            .map(address, size, file, offset, permissions)
            .or_else(|e| {
                let what = format!("{size:#x} bytes at {address:#x}: {e}");
                self.refuse(io::Error::new(e.kind(), what))
            })
    }

    fn dma_unmap(&mut self, flags: DmaUnmapFlags, address: u64, size: u64) -> io::Result<()> {
        if flags.contains(DmaUnmapFlags::UNMAP_ALL) {
            self.memory.clear();
        } else {
            let gone = self.memory.unmap(address, size);
            debug!("{}: {gone} ranges at {address:#x} are gone", self.name);
        }
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        info!("{}: reset", self.name);
        self.reset_device();
        Ok(())
    }

    fn set_irqs(
        &mut self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        fds: Vec<File>,
    ) -> io::Result<()> {
        // A client takes away what it never connected, to be sure: of INTx, for one.
        if index != VFIO_PCI_MSIX_IRQ_INDEX && fds.is_empty() {
            return Ok(());
        }
        if index != VFIO_PCI_MSIX_IRQ_INDEX {
            return self.refuse(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("there are no interrupts of kind {index}"),
            ));
        }
        debug!(
            "{}: {count} vectors from {start}: {} eventfds, flags {flags:#x}",
            self.name,
            fds.len()
        );
        self.msix
            .set(flags, start, count, fds)
            .or_else(|e| self.refuse(e))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::fd::AsRawFd,
        path::PathBuf,
        sync::{
            mpsc,
            Mutex, //
        },
        thread, //
    };

    use vmm_sys_util::{
        eventfd::{
            EventFd,
            EFD_NONBLOCK, //
        },
        tempdir::TempDir,
        tempfile::TempFile, //
    };

    use super::*;

    /// A BAR that is plain memory of 16 bytes, and counts resets.
    struct Plain {
        bytes: Mutex<[u8; 16]>,
        resets: mpsc::Sender<()>,
    }

    impl Device for Plain {
        fn bar_read(&self, offset: u64, to: &mut [u8]) {
            let bytes = self.bytes.lock().unwrap();
            for (byte, at) in to.iter_mut().zip(offset as usize..) {
                *byte = bytes.get(at).copied().unwrap_or(0);
            }
        }

        fn bar_write(&self, offset: u64, from: &[u8]) {
            let mut bytes = self.bytes.lock().unwrap();
            for (byte, at) in from.iter().zip(offset as usize..) {
                if let Some(to) = bytes.get_mut(at) {
                    *to = *byte;
                }
            }
        }

        fn reset(&self) {
            self.bytes.lock().unwrap().fill(0);
            self.resets.send(()).unwrap();
        }
    }

    struct Served {
        _dir: TempDir,
        path: PathBuf,
        memory: Arc<DmaSpace>,
        msix: Arc<Msix>,
        resets: mpsc::Receiver<()>,
    }

    /// Serves a plain device until the test process ends.
    fn served() -> Served {
        let dir = TempDir::new().unwrap();
        let path = dir.as_path().join("socket");
        let (sender, resets) = mpsc::channel();
        let memory = Arc::new(DmaSpace::default());
        let msix = Arc::new(Msix::new(4));
        let device = Plain {
            bytes: Mutex::default(),
            resets: sender,
        };
        let server = Server::new(
            "test",
            0,
            UnixListener::bind(&path).unwrap(),
            Arc::new(device),
            memory.clone(),
            msix.clone(),
        );
        thread::spawn(|| server.serve());
        Served {
            _dir: dir,
            path,
            memory,
            msix,
            resets,
        }
    }

    #[test]
    fn one_client_after_the_other() {
        let served = served();
        for round in 0..3u8 {
            let mut client = vfio_user::Client::new(&served.path).unwrap();
            assert_eq!(client.region(0).unwrap().size, BAR_SIZE);
            assert!(client.region(0).unwrap().sparse_areas.is_empty());
            assert_eq!(client.region(2).unwrap().size, 0);
            assert_eq!(client.get_irq_info(2).unwrap().count, 4);
            assert_eq!(client.get_irq_info(0).unwrap().count, 0);

            let mut id = [0; 4];
            client.region_read(7, 0, &mut id).unwrap();
            assert_eq!(u32::from_le_bytes(id), 0x101e_15b3);
            let mut byte = [1];
            client.region_read(0, 3, &mut byte).unwrap();
            assert_eq!(byte, [0], "nothing is left of the client before");
            client.region_write(0, 3, &[7 + round]).unwrap();
            client.region_read(0, 3, &mut byte).unwrap();
            assert_eq!(byte, [7 + round]);

            let file = TempFile::new().unwrap().into_file();
            file.set_len(8192).unwrap();
            client
                .dma_map(4096, 0x1000, 4096, file.as_raw_fd())
                .unwrap();
            let reached = || served.memory.snapshot().store(0x1000, 1u8).is_ok();
            assert!(!reached(), "the device is no bus master yet");
            client.region_write(7, 4, &[6, 0]).unwrap();
            assert!(reached());
            client.dma_unmap(0x1000, 4096).unwrap();
            assert!(served.memory.snapshot().load::<u8>(0x1000).is_err());
            client.dma_map(0, 0x1000, 4096, file.as_raw_fd()).unwrap();

            let eventfd = EventFd::new(EFD_NONBLOCK).unwrap();
            client
                .set_irqs(2, 0x24, 1, 1, &[eventfd.as_raw_fd()])
                .unwrap();
            served.msix.raise(1);
            assert_eq!(eventfd.read().unwrap(), 1);

            client.reset().unwrap();
            served.resets.recv().unwrap();
            client.region_read(0, 3, &mut byte).unwrap();
            assert_eq!(byte, [0]);
            assert!(!reached(), "the reset took the bus from it");
            client.region_write(7, 4, &[6, 0]).unwrap();
            assert!(reached());

            drop(client);
            // The reset comes first, then the memory goes; the next client sees neither half done.
            served.resets.recv().unwrap();
            let next = vfio_user::Client::new(&served.path).unwrap();
            assert!(served.memory.snapshot().load::<u8>(0x1000).is_err());
            served.msix.raise(1);
            assert!(eventfd.read().is_err());
            drop(next);
            served.resets.recv().unwrap();
        }
    }

    #[test]
    fn a_driver_resets_through_configuration_space() {
        let served = served();
        let mut client = vfio_user::Client::new(&served.path).unwrap();
        client.region_write(0, 0, &[9]).unwrap();
        client.region_write(7, 0x9e, &[0, 0x80]).unwrap();
        client.region_write(7, 0x68, &[0, 0x80]).unwrap();
        served.resets.recv().unwrap();
        let mut bytes = [1; 2];
        client.region_read(0, 0, &mut bytes).unwrap();
        assert_eq!(bytes, [0, 0]);
        client.region_read(7, 0x9e, &mut bytes).unwrap();
        assert_eq!(bytes, [3, 0]);
    }

    fn backend() -> Backend {
        Backend {
            name: "test".to_owned(),
            config: ConfigSpace::new(4, 0),
            device: Arc::new(Plain {
                bytes: Mutex::default(),
                resets: mpsc::channel().0,
            }),
            memory: Arc::default(),
            msix: Arc::new(Msix::new(4)),
        }
    }

    #[test]
    fn out_of_bounds() {
        let mut backend = backend();
        let mut bytes = [0; 4];
        assert!(backend.region_read(0, BAR_SIZE - 4, &mut bytes).is_ok());
        assert!(backend.region_read(0, BAR_SIZE - 3, &mut bytes).is_err());
        assert!(backend.region_read(7, 4096, &mut bytes).is_err());
        assert!(backend.region_write(0, u64::MAX, &bytes).is_err());
        assert!(backend.region_write(1, 0, &bytes).is_err());
    }

    #[test]
    fn memory_without_a_file_and_with_fewer_rights() {
        let mut backend = backend();
        backend
            .dma_map(DmaMapFlags::READ_WRITE, 0, 0, 4096, None)
            .unwrap();
        assert!(backend.memory.snapshot().load::<u8>(0).is_err());
        let file = TempFile::new().unwrap().into_file();
        file.set_len(4096).unwrap();
        let again = file.try_clone().unwrap();
        backend
            .dma_map(DmaMapFlags::READ, 0, 0, 4096, Some(file))
            .unwrap();
        assert!(backend.memory.snapshot().load::<u8>(0).is_ok());
        assert!(backend.memory.snapshot().store(0, 1u8).is_err());
        assert!(backend
            .dma_map(DmaMapFlags::READ, 0, 0, 4096, Some(again))
            .is_err());
        backend.dma_unmap(DmaUnmapFlags::UNMAP_ALL, 0, 0).unwrap();
        assert!(backend.memory.snapshot().load::<u8>(0).is_err());
    }

    #[test]
    fn interrupts_of_other_kinds() {
        let mut backend = backend();
        assert!(backend.set_irqs(0, 0x21, 0, 0, Vec::new()).is_ok());
        let fd = TempFile::new().unwrap().into_file();
        assert!(backend.set_irqs(0, 0x24, 0, 1, vec![fd]).is_err());
        assert!(backend.set_irqs(2, 0x24, 4, 1, Vec::new()).is_err());
    }
}
