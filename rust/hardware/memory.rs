// SPDX-License-Identifier: GPL-2.0

//! Memory that a device and its driver share.

use kernel::{
    dma::{
        Coherent,
        CoherentHandle, //
    },
    io::{
        Io,
        SysMem, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::barrier::{
        dma_mb,
        Full,
        Read,
        Write, //
    }, //
};

use crate::Device;

/// Coherent memory in whole pages, zeroed, in one piece for the device as well.
///
/// The device may change it at any time: it is read by copying, byte by byte or a single one, and
/// what was read is not read again.
///
/// To be dropped where one may sleep, and after the device was told to forget it.
pub struct Memory(Coherent<[u8]>);

impl Memory {
    /// Allocates at least `len` bytes, not 0.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is not bound, `ENOMEM`, `EINVAL`.
    pub fn new(device: &Device, len: usize) -> Result<Self> {
        let len = len.checked_next_multiple_of(PAGE_SIZE).ok_or(EINVAL)?;
        let memory =
            device.bound(|pdev| Coherent::<u8>::zeroed_slice(pdev.as_ref(), len, GFP_KERNEL))?;
        Ok(Self(memory))
    }

    /// Where it is for the device.
    pub fn addr(&self) -> u64 {
        self.0.dma_address()
    }

    /// Its size in bytes.
    #[expect(clippy::len_without_is_empty, reason = "memory is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The `len` bytes at offset `at`.
    fn part(&self, at: usize, len: usize) -> Result<SysMem<'_, [u8]>> {
        let end = at.checked_add(len).ok_or(EINVAL)?;
        if end > self.len() {
            return Err(EINVAL);
        }
        let start: *mut u8 = self.0.as_mut_ptr().cast();
        let part = core::ptr::slice_from_raw_parts_mut(start.wrapping_add(at), len);
        // SAFETY: The part lies in the allocation, as was just checked, which lives as long as
        // `self` is borrowed.
        Ok(unsafe { SysMem::new(part) })
    }

    /// Copies what is at offset `at`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if that is not all in the memory.
    pub fn read(&self, at: usize, to: &mut [u8]) -> Result {
        self.part(at, to.len())?.copy_to_slice(to);
        Ok(())
    }

    /// Copies to offset `at`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if that is not all in the memory.
    pub fn write(&self, at: usize, from: &[u8]) -> Result {
        self.part(at, from.len())?.copy_from_slice(from);
        Ok(())
    }

    /// Reads the byte at offset `at`, by which the device says that it has written others: those
    /// are read after it.
    ///
    /// # Errors
    ///
    /// `EINVAL` if that is not in the memory.
    pub fn load(&self, at: usize) -> Result<u8> {
        let byte: *const u8 = self.part(at, 1)?.as_ptr().cast();
        // SAFETY: The byte is in the allocation, as was just checked. That the device may write it
        // at once is what volatile is for.
        let byte = unsafe { byte.read_volatile() };
        dma_mb(Read);
        Ok(byte)
    }

    /// Reads the 16-bit value at offset `at` in one access, as the processor stores it. What the
    /// device wrote before it is read after it.
    ///
    /// # Errors
    ///
    /// `EINVAL` if that is not in the memory, or not aligned.
    pub fn load_u16(&self, at: usize) -> Result<u16> {
        let value: *const u16 = self.aligned(at)?;
        // SAFETY: The value is in the allocation and aligned, as was just checked. That the device
        // may write it at once is what volatile is for.
        let value = unsafe { value.read_volatile() };
        dma_mb(Read);
        Ok(value)
    }

    /// Writes the 16-bit value at offset `at` in one access, as the processor stores it, after all
    /// that was written before.
    ///
    /// # Errors
    ///
    /// `EINVAL` if that is not in the memory, or not aligned.
    pub fn store_u16(&self, at: usize, value: u16) -> Result {
        let to: *mut u16 = self.aligned(at)?;
        dma_mb(Write);
        // SAFETY: The value lies in the allocation and is aligned, as was just checked. That the
        // device may read it at once is what volatile is for.
        unsafe { to.write_volatile(value) };
        Ok(())
    }

    /// Orders what was read and written before against what is read and written behind this, as the
    /// device sees it.
    pub fn fence(&self) {
        dma_mb(Full);
    }

    /// Where the value of type `T` at offset `at` is.
    fn aligned<T>(&self, at: usize) -> Result<*mut T> {
        let part: *mut T = self.part(at, size_of::<T>())?.as_ptr().cast();
        if part.is_aligned() {
            Ok(part)
        } else {
            Err(EINVAL)
        }
    }

    /// Writes the big-endian word of 32 bits at offset `at` in one piece, after all that was written
    /// before.
    ///
    /// # Errors
    ///
    /// `EINVAL` if that is not in the memory, or not aligned.
    pub fn store_word(&self, at: usize, word: u32) -> Result {
        let part: *mut u32 = self.aligned(at)?;
        // SAFETY: The word lies in the allocation and is aligned, as was just checked; the allocation
        // lives as long as `self` is borrowed.
        let part = unsafe { SysMem::new(part) };
        dma_mb(Write);
        part.write_val(word.to_be());
        Ok(())
    }
}

/// Coherent memory in one piece that only the device uses.
///
/// To be dropped as [`Memory`] is.
pub struct DeviceMemory(CoherentHandle);

impl DeviceMemory {
    /// Allocates `len` bytes, not 0.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is not bound, `ENOMEM`, `EINVAL`.
    pub fn new(device: &Device, len: usize) -> Result<Self> {
        let memory = device.bound(|pdev| CoherentHandle::alloc(pdev.as_ref(), len, GFP_KERNEL))?;
        Ok(Self(memory))
    }

    /// Where it is for the device.
    pub fn addr(&self) -> u64 {
        self.0.dma_address()
    }
}
