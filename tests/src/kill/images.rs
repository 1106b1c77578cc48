//! Images that are made in no time and hold nothing: their kernel stops the processor at once.

use std::path::Path;
use std::process::Command;

/// Real-mode setup code that does nothing, behind the header of a Linux boot image (Linux's
/// Documentation/arch/x86/boot.rst).
fn kernel() -> Vec<u8> {
    let mut image = vec![0_u8; 8192];
    image[0x1f1] = 1; // sectors of setup code after the first
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x200..0x202].copy_from_slice(&[0xeb, 0x7e]); // jump to 0x280
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x0203_u16.to_le_bytes());
    image[0x211] = 1; // loaded high
    image[0x280..0x284].copy_from_slice(&[0xfa, 0xf4, 0xeb, 0xfc]); // cli; hlt; jump back to hlt
    image
}

/// Writes images of both forms for all roles, as `IPOP_IMAGES` takes them.
pub fn write(dir: &Path) {
    for role in ["frontend", "worker", "share"] {
        let dir = dir.join(role);
        std::fs::create_dir_all(&dir).expect("a directory");
        let write = |name: &str, content: &[u8]| {
            std::fs::write(dir.join(name), content).expect("an image is written");
        };
        write("vmlinuz", &kernel());
        write(
            "cmdline",
            format!("root=/dev/nvme0n1 role={role}\n").as_bytes(),
        );
        // Three blocks of 512 KiB, of which the middle one is empty.
        let mut raw = vec![0_u8; 3 << 19];
        raw[..role.len()].copy_from_slice(role.as_bytes());
        raw[1 << 20..][..role.len()].copy_from_slice(role.as_bytes());
        write("disk.raw", &raw);
        let status = Command::new("qemu-img")
            .args(["convert", "-q", "-f", "raw", "-O", "qcow2"])
            .args([dir.join("disk.raw"), dir.join("root.qcow2")])
            .status()
            .expect("qemu-img; is the package `qemu-utils` installed?");
        assert!(status.success(), "qemu-img failed");
    }
}
