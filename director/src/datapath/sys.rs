//! Calls of the kernel's BPF interface that the library has no function for.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;

/// Commands of `bpf(2)` (`enum bpf_cmd` in `linux/bpf.h`).
const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;
const BPF_LINK_DETACH: libc::c_int = 34;
/// Types of maps (`enum bpf_map_type`).
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;

/// The start of `union bpf_attr`, as words of 8 bytes; the kernel takes what is not given as zero.
fn bpf<const WORDS: usize>(
    command: libc::c_int,
    attributes: &mut [u64; WORDS],
) -> io::Result<libc::c_long> {
    // SAFETY: the attributes are valid for their size, and what they point to is the callers' business.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_mut_ptr(),
            size_of_val(attributes),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Two 4-byte fields that stand side by side in an 8-byte word.
fn pair(first: u32, second: u32) -> u64 {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first.to_ne_bytes());
    bytes[4..].copy_from_slice(&second.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    // Descriptors are never negative.
    fd.as_raw_fd().cast_unsigned()
}

/// Reads as many elements of an array map, from `first` on, as there is room for in `values`; how many that were.
/// `each`: values of an element, as many as there are possible CPUs in a map that has one for each.
pub(super) fn read_batch<V: aya::Pod>(
    map: BorrowedFd<'_>,
    first: u32,
    each: usize,
    values: &mut [V],
) -> io::Result<usize> {
    // The kernel pads the values of a map that has one for each CPU to 8 bytes.
    debug_assert!(size_of::<V>().is_multiple_of(8));
    let room = values.len() / each.max(1);
    let mut keys = vec![0_u32; room];
    // What the kernel goes on after. After a key that no array has it begins (`array_map_get_next_key`).
    let before = first.wrapping_sub(1);
    let mut after = 0_u32;
    let room = u32::try_from(room).map_err(io::Error::other)?;
    let mut attributes = [
        (&raw const before) as u64,
        (&raw mut after) as u64,
        keys.as_mut_ptr() as u64,
        values.as_mut_ptr() as u64,
        pair(room, number(map)),
        0,
        0,
    ];
    let read = match bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) {
        Ok(_) => Ok(()),
        // The end of the map; what was read until then is there.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(error) => Err(error),
    };
    let [a, b, c, d, ..] = attributes[4].to_ne_bytes();
    read.map(|()| u32::from_ne_bytes([a, b, c, d]) as usize)
}

/// Reads elements of a hash map, as many as there is room for in `keys`. Gives how many that were, and what the next call
/// goes on after; `None`: these were the last.
///
/// It goes by the map's buckets, so that whatever is added or removed between two calls, what stays is read, and read once.
pub(super) fn read_hash_batch<K: aya::Pod, V: aya::Pod>(
    map: BorrowedFd<'_>,
    after: Option<u32>,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<(usize, Option<u32>)> {
    let room = u32::try_from(keys.len().min(values.len())).map_err(io::Error::other)?;
    // The number of a bucket, whatever the keys are (`__htab_map_lookup_and_delete_batch` in `kernel/bpf/hashtab.c`).
    let (before, mut next) = (after.unwrap_or_default(), 0_u32);
    let mut attributes = [
        after.map_or(0, |_| (&raw const before) as u64),
        (&raw mut next) as u64,
        keys.as_mut_ptr() as u64,
        values.as_mut_ptr() as u64,
        pair(room, number(map)),
        0,
        0,
    ];
    let is_last = match bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) {
        Ok(_) => false,
        // The end of the map; what was read until then is there.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
        Err(error) => return Err(error),
    };
    let [a, b, c, d, ..] = attributes[4].to_ne_bytes();
    let read = u32::from_ne_bytes([a, b, c, d]) as usize;
    Ok((read, (!is_last).then_some(next)))
}

/// Writes elements of an array map, from `first` on. Each for itself: a reader meanwhile sees some of them.
pub(super) fn write_batch(map: BorrowedFd<'_>, first: u32, values: &[u32]) -> io::Result<()> {
    let keys: Vec<u32> = (first..).take(values.len()).collect();
    let count = u32::try_from(values.len()).map_err(io::Error::other)?;
    let mut attributes = [
        0,
        0,
        keys.as_ptr() as u64,
        values.as_ptr() as u64,
        pair(count, number(map)),
        0,
        0,
    ];
    bpf(BPF_MAP_UPDATE_BATCH, &mut attributes).map(|_| ())
}

/// Removes an element of a map with `u32` keys. One that is not there is no error.
pub(super) fn delete(map: BorrowedFd<'_>, key: u32) -> io::Result<()> {
    let mut attributes = [u64::from(number(map)), (&raw const key) as u64, 0, 0];
    match bpf(BPF_MAP_DELETE_ELEM, &mut attributes) {
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// An array map with one element of four bytes. `inner` is what arrays of maps take as a pattern of their elements.
fn make_array(kind: u32, inner: u32) -> io::Result<OwnedFd> {
    // Type, size of keys, size of values, elements, flags, pattern.
    let mut attributes = [pair(kind, 4), pair(4, 1), pair(0, inner), 0];
    owned(bpf(BPF_MAP_CREATE, &mut attributes)?)
}

/// Runs a program once with these words as its packet, and gives back what it made of them.
pub(super) fn run_program(program: BorrowedFd<'_>, words: &mut [u64]) -> io::Result<()> {
    let bytes = size_of_val(words) as u32;
    let at = words.as_mut_ptr() as u64;
    // Program and its result, bytes of both buffers, one buffer for both, repetitions and how long they took: the kernel
    // writes that too, however short the attributes are said to be.
    let mut attributes = [pair(number(program), 0), pair(bytes, bytes), at, at, 0];
    bpf(BPF_PROG_TEST_RUN, &mut attributes).map(|_| ())
}

/// Waits until every run of a BPF program that is under way has ended.
///
/// A write into an array of maps does (`maybe_wait_bpf_programs` in `kernel/bpf/syscall.c`: "so that userspace, when we
/// return to it, knows that all programs that could be running use the new map value"). `membarrier(2)` would too, but not
/// on kernels with `nohz_full`.
pub(super) fn wait_for_programs() -> io::Result<()> {
    let inner = make_array(BPF_MAP_TYPE_ARRAY, 0)?;
    let outer = make_array(BPF_MAP_TYPE_ARRAY_OF_MAPS, number(inner.as_fd()))?;
    let (key, value) = (0_u32, number(inner.as_fd()));
    let mut attributes = [
        u64::from(number(outer.as_fd())),
        (&raw const key) as u64,
        (&raw const value) as u64,
        0,
    ];
    bpf(BPF_MAP_UPDATE_ELEM, &mut attributes).map(|_| ())
}

/// A descriptor that a call gave.
fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A pinned object.
fn open(path: &Path) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    owned(bpf(BPF_OBJ_GET, &mut [name.as_ptr() as u64, 0, 0, 0])?)
}

/// Detaches a pinned link at once. Removing its pin alone lets the kernel do it some time later.
pub(super) fn detach(path: &Path) -> io::Result<()> {
    let link = open(path)?;
    bpf(
        BPF_LINK_DETACH,
        &mut [pair(number(link.as_fd()), 0), 0, 0, 0],
    )
    .map(|_| ())
}

/// Interface index that a pinned XDP link is attached to; 0 when the interface is gone.
pub(super) fn link_ifindex(path: &Path) -> io::Result<u32> {
    let link = open(path)?;
    // `struct bpf_link_info`: type, id, program id, padding, then for XDP the interface index.
    let mut info = [0_u32; 32];
    let length = size_of_val(&info) as u32;
    let fd = number(link.as_fd());
    bpf(
        BPF_OBJ_GET_INFO_BY_FD,
        &mut [pair(fd, length), info.as_mut_ptr() as u64, 0, 0],
    )?;
    Ok(info[4])
}
