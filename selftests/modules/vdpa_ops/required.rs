// SPDX-License-Identifier: GPL-2.0

//! The operations that every device has.

/// The required operations of a device with `notes`.
macro_rules! required {
    () => {
        fn set_vq_address(
            dev: &Device<Self>,
            index: u16,
            desc: u64,
            driver: u64,
            device: u64,
        ) -> Result {
            let arguments = [desc, driver, device];
            dev.notes
                .note(Op::SetVqAddress, u32::from(index), arguments)
        }

        fn set_vq_num(dev: &Device<Self>, index: u16, num: u32) {
            let arguments = [u64::from(num), 0, 0];
            dev.notes
                .note_only(Op::SetVqNum, u32::from(index), arguments);
        }

        fn kick_vq(dev: &Device<Self>, index: u16) {
            dev.notes.kick(index);
        }

        fn set_vq_ready(dev: &Device<Self>, index: u16, ready: bool) {
            let arguments = [u64::from(ready), 0, 0];
            dev.notes
                .note_only(Op::SetVqReady, u32::from(index), arguments);
            dev.notes
                .with(|state| state.ready[usize::from(index)] = ready);
        }

        fn get_vq_ready(dev: &Device<Self>, index: u16) -> bool {
            dev.notes.with(|state| state.ready[usize::from(index)])
        }

        fn set_vq_state(dev: &Device<Self>, index: u16, to: VqState) -> Result {
            let arguments = [u64::from(to.avail), u64::from(to.used), 0];
            dev.notes
                .note(Op::SetVqState, u32::from(index), arguments)?;
            dev.notes.with(|state| state.vqs[usize::from(index)] = to);
            Ok(())
        }

        fn get_vq_state(dev: &Device<Self>, index: u16) -> Result<VqState> {
            Ok(dev.notes.with(|state| state.vqs[usize::from(index)]))
        }

        fn get_vq_align(dev: &Device<Self>) -> u32 {
            dev.notes.align
        }

        fn get_device_features(_dev: &Device<Self>) -> u64 {
            FEATURES.bits()
        }

        fn set_driver_features(dev: &Device<Self>, features: u64) -> Result {
            dev.notes.note(Op::SetDriverFeatures, 0, [features, 0, 0])?;
            dev.notes.with(|state| state.features = features);
            Ok(())
        }

        fn get_driver_features(dev: &Device<Self>) -> u64 {
            dev.notes.with(|state| state.features)
        }

        fn get_vq_num_max(_dev: &Device<Self>) -> u16 {
            256
        }

        fn get_device_id(_dev: &Device<Self>) -> u32 {
            vdpa::ID_NET
        }

        fn get_vendor_id(_dev: &Device<Self>) -> u32 {
            0
        }

        fn get_status(dev: &Device<Self>) -> u8 {
            dev.notes.with(|state| state.status)
        }

        fn set_status(dev: &Device<Self>, status: u8) {
            dev.notes
                .note_only(Op::SetStatus, 0, [u64::from(status), 0, 0]);
            dev.notes.with(|state| state.status = status);
        }

        fn reset(dev: &Device<Self>) -> Result {
            dev.notes.note(Op::Reset, 0, [0; 3])?;
            dev.notes.reset();
            Ok(())
        }

        fn get_config_size(dev: &Device<Self>) -> usize {
            dev.notes.config_size()
        }

        fn get_config(dev: &Device<Self>, offset: usize, to: &mut [u8]) {
            dev.notes.read(offset, to);
        }

        fn set_config(dev: &Device<Self>, offset: usize, from: &[u8]) {
            dev.notes.write(offset, from);
        }
    };
}

pub(crate) use required;
