// SPDX-License-Identifier: GPL-2.0

//! The guest's memory in this process: the kernel takes its pages from here.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt, //
};

use vm_memory::{
    FileOffset,
    MmapRegion,
    VolatileMemory, //
};

use crate::memory::{
    FileId,
    Region,
    Table, //
};

/// A region, and where it lies in this process. It goes when this is dropped.
#[derive(Debug)]
struct Mapped {
    region: Region,
    memory: MmapRegion<()>,
}

/// Every region that is mapped in this process.
#[derive(Debug, Default)]
pub struct Mappings {
    mapped: Vec<Mapped>,
}

/// Returns which file a descriptor stands for.
///
/// # Errors
///
/// As those of `fstat`.
pub fn identify(file: &File) -> io::Result<FileId> {
    let metadata = file.metadata()?;
    Ok(FileId {
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}

impl Mappings {
    /// Maps `region`, which `file` holds, if the same memory is not mapped yet.
    ///
    /// # Errors
    ///
    /// If the file is shorter than that, or there is no room.
    pub fn add(&mut self, region: Region, file: File) -> io::Result<()> {
        if self.address(&region).is_some() {
            return Ok(());
        }
        let metadata = file.metadata()?;
        // The kernel would map it, and end the process when that is used.
        if metadata.is_file() && metadata.len() < region.offset + region.size {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "its file is shorter than that",
            ));
        }
        let size = usize::try_from(region.size).map_err(io::Error::other)?;
        let memory = MmapRegion::from_file(FileOffset::new(file, region.offset), size)
            .map_err(io::Error::other)?;
        self.mapped.push(Mapped { region, memory });
        Ok(())
    }

    /// Lets go of all that none of `tables` has.
    pub fn keep(&mut self, tables: &[&Table]) {
        let has = |table: &Table, region: &Region| {
            let mut regions = table.regions().iter();
            regions.any(|r| r.is_same_memory(region))
        };
        self.mapped
            .retain(|mapped| tables.iter().any(|table| has(table, &mapped.region)));
    }

    /// Returns where `region` is in this process.
    pub fn address(&self, region: &Region) -> Option<u64> {
        let mapped = self.mapped.iter();
        let mut same = mapped.filter(|mapped| mapped.region.is_same_memory(region));
        same.next()
            .map(|mapped| mapped.memory.as_ptr().addr() as u64)
    }

    /// Returns the two bytes that the guest has at `guest`.
    pub fn read(&self, guest: u64) -> Option<[u8; 2]> {
        self.mapped.iter().find_map(|mapped| {
            let offset = usize::try_from(guest.checked_sub(mapped.region.guest)?).ok()?;
            let slice = mapped.memory.get_slice(offset, 2).ok()?;
            let mut bytes = [0; 2];
            slice.copy_to(&mut bytes);
            Some(bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use vmm_sys_util::tempfile::TempFile;

    use super::*;
    use crate::memory::PAGE;

    #[test]
    fn memory_is_that_of_the_file() {
        let file = TempFile::new().unwrap().into_file();
        file.set_len(3 * PAGE).unwrap();
        file.write_all_at(&[0x12, 0x34], PAGE + 6).unwrap();
        let region = Region {
            guest: 0x10_0000,
            size: PAGE,
            user: 0x7000_0000,
            file: identify(&file).unwrap(),
            offset: PAGE,
        };
        let mut mappings = Mappings::default();
        mappings.add(region, file.try_clone().unwrap()).unwrap();
        assert_eq!(mappings.read(0x10_0006), Some([0x12, 0x34]));
        assert_eq!(mappings.read(0x10_0fff), None);
        assert_eq!(mappings.read(0xf_ffff), None);

        // The same memory once more is where it was, although the monitor has it elsewhere.
        let address = mappings.address(&region).unwrap();
        let moved = Region { user: 0, ..region };
        mappings.add(moved, file.try_clone().unwrap()).unwrap();
        assert_eq!(mappings.mapped.len(), 1);
        assert_eq!(mappings.address(&moved), Some(address));

        let long = Region {
            size: 3 * PAGE,
            ..region
        };
        assert!(mappings.add(long, file).is_err());

        mappings.keep(&[&Table::default()]);
        assert_eq!(mappings.read(0x10_0006), None);
    }
}
