//! What a whole disk looks like: partitions, command line, boot sectors. No I/O.

use super::super::hash::Hasher;

/// Raised when the same root file system would give another whole disk than before.
const WHOLE_FORMAT: u32 = 1;

/// Bytes of a sector.
pub const SECTOR: u64 = 512;
/// The disk without what a machine adds: whole GiB, as EBS volumes are, so that the second copy of
/// the partition table lies at the end of the smallest volume.
pub const DISK_BYTES: u64 = 2 << 30;
/// Where GRUB for BIOS lies, and how much room it has.
pub const BIOS: Part = Part {
    start: 2048,
    sectors: 2048,
};
/// Where the EFI system partition lies.
pub const ESP: Part = Part {
    start: 4096,
    sectors: 126_976,
};
/// Where the root file system begins; its partition takes the rest of the disk.
pub const ROOT_START: u64 = 131_072;
/// Serial number of the EFI system partition's file system.
pub const ESP_ID: &str = "69706F70";
/// `PARTUUID` of the root partition.
const ROOT_PARTITION: &str = "69706f70-0000-4000-8000-000000000013";

/// Place of a boot sector's fields, from GRUB's `boot.S`.
const BOOT_BPB: std::ops::Range<usize> = 0x03..0x5a;
const BOOT_CORE_SECTOR: usize = 0x5c;
const BOOT_DRIVE_CHECK: usize = 0x66;
const BOOT_TABLE: std::ops::Range<usize> = 0x1b8..0x200;
/// Place of the first block list of GRUB's core image, from `diskboot.S`: sector (8 bytes), count
/// (2), segment (2).
const CORE_BLOCK_LIST: usize = 0x200 - 12;

/// Sectors of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// First sector.
    pub start: u64,
    /// How many.
    pub sectors: u64,
}

impl Part {
    /// First byte.
    pub const fn offset(self) -> u64 {
        self.start * SECTOR
    }

    /// Length in bytes.
    pub const fn bytes(self) -> u64 {
        self.sectors * SECTOR
    }
}

/// Identity of a whole disk: the image it is made from, and every loader on it.
pub fn whole_hash(image_hash: &str, cmdline: &str, loaders: &[&[u8]]) -> String {
    let mut hasher = Hasher::new("whole");
    hasher.field(&WHOLE_FORMAT.to_le_bytes());
    hasher.field(image_hash.as_bytes());
    hasher.field(cmdline.as_bytes());
    hasher.field(partition_table().as_bytes());
    hasher.field(grub_config(cmdline).as_bytes());
    for loader in loaders {
        hasher.field(loader);
    }
    hasher.finish()
}

/// The partition table in the language of sfdisk(8). Identifiers are fixed, so that equal content
/// makes an equal disk.
pub fn partition_table() -> String {
    let (bios, esp) = (BIOS, ESP);
    format!(
        "label: gpt\n\
         label-id: 69706F70-0000-4000-8000-000000000010\n\
         unit: sectors\n\
         first-lba: {first}\n\
         start={}, size={}, type=21686148-6449-6E6F-744E-656564454649, uuid=69706F70-0000-4000-8000-000000000011, name=\"bios\"\n\
         start={}, size={}, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=69706F70-0000-4000-8000-000000000012, name=\"esp\"\n\
         start={ROOT_START}, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, uuid={root}, name=\"root\"\n",
        bios.start,
        bios.sectors,
        esp.start,
        esp.sectors,
        first = bios.start,
        root = ROOT_PARTITION.to_uppercase(),
    )
}

/// The recipe's command line with the root found by its partition, whatever the disk is called.
/// `ipop.whole` tells the guest that there is a partition to grow.
pub fn cmdline(recipe: &str) -> String {
    let others = recipe
        .split_whitespace()
        .filter(|word| !word.starts_with("root=") && *word != "rootwait");
    // EBS answers late rather than never: Amazon asks for the longest time limit there is.
    ["root=PARTUUID=", ROOT_PARTITION, " rootwait"]
        .concat()
        .split(' ')
        .chain(others)
        .chain(["nvme_core.io_timeout=4294967295", "ipop.whole"])
        .collect::<Vec<_>>()
        .join(" ")
}

/// `grub.cfg`: no menu, one kernel.
pub fn grub_config(cmdline: &str) -> String {
    format!(
        "if serial --unit=0 --speed=115200; then\n  terminal_output serial console\nfi\n\
         linux /vmlinuz {cmdline}\n\
         boot\n"
    )
}

/// GRUB's first sector for this disk, whose protective partition table `mbr` has.
pub fn boot_sector(boot_image: &[u8], mbr: &[u8]) -> Option<Vec<u8>> {
    let mut sector = boot_image.to_vec();
    let mbr = mbr.get(..SECTOR as usize)?;
    if sector.len() != SECTOR as usize || sector[0x1fe..] != [0x55, 0xaa] {
        return None;
    }
    sector[BOOT_BPB].copy_from_slice(&mbr[BOOT_BPB]);
    sector[BOOT_TABLE].copy_from_slice(&mbr[BOOT_TABLE]);
    sector[BOOT_CORE_SECTOR..][..8].copy_from_slice(&BIOS.start.to_le_bytes());
    // A BIOS that says "drive 0" for the first hard disk is put right; for a floppy disk, which
    // this is not, the two bytes are a jump over that.
    sector[BOOT_DRIVE_CHECK..][..2].copy_from_slice(&[0x90, 0x90]);
    Some(sector)
}

/// GRUB's core image, told where the rest of it lies. `None` when it is not one or too large.
pub fn core_image(core: &[u8]) -> Option<Vec<u8>> {
    let mut core = core.to_vec();
    let rest = (core.len() as u64).div_ceil(SECTOR).checked_sub(1)?;
    let list = core.get_mut(CORE_BLOCK_LIST..CORE_BLOCK_LIST + 12)?;
    let count = u64::from(u16::from_le_bytes([list[8], list[9]]));
    if count != rest || rest + 1 > BIOS.sectors {
        return None;
    }
    list[..8].copy_from_slice(&(BIOS.start + 1).to_le_bytes());
    Some(core)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_found_by_its_partition_and_the_rest_of_the_command_line_stays() {
        insta::assert_snapshot!(
            cmdline("root=/dev/nvme0n1 rootfstype=ext4 rw console=ttyS0 panic=10"),
            @"root=PARTUUID=69706f70-0000-4000-8000-000000000013 rootwait rootfstype=ext4 rw console=ttyS0 panic=10 nvme_core.io_timeout=4294967295 ipop.whole"
        );
    }

    // Partitions do not overlap and fit the disk: checked by the compiler.
    const _: () = assert!(BIOS.start + BIOS.sectors <= ESP.start);
    const _: () = assert!(ESP.start + ESP.sectors <= ROOT_START);
    const _: () = assert!(ROOT_START * SECTOR < DISK_BYTES);

    #[test]
    fn partitions_begin_on_whole_mebibytes() {
        for start in [BIOS.start, ESP.start, ROOT_START] {
            assert_eq!(start % 2048, 0, "not on a boundary of 1 MiB");
        }
    }

    #[test]
    fn the_boot_sector_keeps_the_partition_table_and_points_to_the_core() {
        let mut image = vec![0xcc; 512];
        image[0x1fe..].copy_from_slice(&[0x55, 0xaa]);
        let mut mbr = vec![0u8; 512];
        mbr[0x1be] = 0x77;
        mbr[0x1fe..].copy_from_slice(&[0x55, 0xaa]);
        let sector = boot_sector(&image, &mbr).expect("a sector");
        assert_eq!(sector[0x1be], 0x77);
        assert_eq!(sector[0x5c..0x64], 2048u64.to_le_bytes());
        assert_eq!(sector[0x66..0x68], [0x90, 0x90]);
        assert_eq!(sector[0], 0xcc);
        assert_eq!(boot_sector(&image[..511], &mbr), None);
        assert_eq!(boot_sector(&image, &mbr[..100]), None);
        assert_eq!(boot_sector(&vec![0; 512], &mbr), None);
    }

    #[test]
    fn the_core_is_told_where_its_second_sector_lies_and_anything_else_is_refused() {
        let mut core = vec![0u8; 1500];
        core[508..510].copy_from_slice(&2u16.to_le_bytes());
        let patched = core_image(&core).expect("a core image");
        assert_eq!(patched[500..508], 2049u64.to_le_bytes());
        assert_eq!(patched[508..510], 2u16.to_le_bytes());
        core.push(0);
        core.resize(1600, 0);
        assert_eq!(core_image(&core), None, "says two sectors and has three");
        assert_eq!(core_image(&[]), None);
        let mut large = vec![0u8; 2049 * 512];
        large[508..510].copy_from_slice(&2048u16.to_le_bytes());
        assert_eq!(core_image(&large), None);
    }

    #[test]
    fn another_loader_is_another_disk() {
        let hash = |loader: &[u8]| whole_hash("i", "c", &[loader]);
        assert_ne!(hash(b"a"), hash(b"b"));
        assert_ne!(
            whole_hash("i", "c", &[b"ab", b""]),
            whole_hash("i", "c", &[b"a", b"b"])
        );
    }
}
