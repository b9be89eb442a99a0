//! Media in this process's own memory that a socket can be given without a copy: a memfd whose bytes are written once and mapped for reading.
//! Where in it a slice lies can be asked, so that who holds one needs to know nothing of all that.
//!
//! No offset of the file is used twice, and only whole pages are given back: what a socket still holds of a page stays as it was, for the file's
//! next page there, if there ever is one, is another one.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use rustix::fs::{FallocateFlags, fallocate, fcntl_add_seals, ftruncate, sendfile};
use rustix::io::{Errno, pwrite};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use rustix::process::{Resource, getrlimit};

use crate::memory::{SEALS, memfd};

/// Less than this is copied as cheaply.
pub const LEAST_MEDIA: usize = 16 << 10;

/// The memfd's name in /proc.
const MEMFD_NAME: &str = "ringgear-media";
/// How much of the file is mapped at once; more, if one piece of media is larger.
const EXTENT: usize = 1 << 20;
/// The most mappings: a process may have 65,530 as Linux comes, and others are in need of some, too.
const MOST_EXTENTS: usize = 16_384;
/// The file's size. It has memory only where something is written.
const FILE: u64 = 1 << 62;
/// Where Linux says what it does about large pages.
const LARGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage";

/// The memfd.
#[derive(Debug)]
struct File {
    /// Never handed out.
    fd: OwnedFd,
    /// Where the next extent begins.
    next: Mutex<u64>,
    /// Of each extent its address, its bytes, and where they are in the file.
    mapped: RwLock<BTreeMap<usize, (usize, u64)>>,
}

impl File {
    fn new() -> Result<Self, Errno> {
        // The system ends who makes a file larger than it may.
        if getrlimit(Resource::Fsize).current.is_some() {
            return Err(Errno::FBIG);
        }
        let fd = memfd(MEMFD_NAME)?;
        ftruncate(&fd, FILE)?;
        fcntl_add_seals(&fd, SEALS)?;
        Ok(Self {
            fd,
            next: Mutex::new(0),
            mapped: RwLock::default(),
        })
    }

    /// The process's, if it can have one.
    fn of_process() -> Option<&'static Self> {
        static FILE: OnceLock<Option<File>> = OnceLock::new();
        FILE.get_or_init(|| File::new().ok()).as_ref()
    }

    /// Gives back the memory of a range of whole pages. Should the system not take it, that is kept with the file.
    fn free(&self, offset: u64, bytes: usize) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let _ = fallocate(&self.fd, flags, offset, bytes as u64);
    }

    fn write(&self, mut bytes: &[u8], mut offset: u64) -> Result<(), Errno> {
        while !bytes.is_empty() {
            match pwrite(&self.fd, bytes, offset) {
                Ok(0) => return Err(Errno::NOSPC),
                Ok(written) => {
                    bytes = &bytes[written..];
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Where `slice` begins in the file, if all of it is there.
    fn offset_of(&self, slice: &[u8]) -> Option<u64> {
        let address = slice.as_ptr().addr();
        let mapped = self.mapped.read().unwrap_or_else(PoisonError::into_inner);
        let (start, (bytes, offset)) = mapped.range(..=address).next_back()?;
        let from = address - start;
        (from < *bytes && slice.len() <= bytes - from).then_some(offset + from as u64)
    }
}

/// Whether the file's pages are small ones. Of a large one whose part is given back the rest may stay, and then Linux fills that part with zeros,
/// under the hands of a socket that holds it.
fn has_small_pages() -> bool {
    has_small_pages_by(std::path::Path::new(LARGE_PAGES))
}

/// By what is in `folder`. What can't be read may be anything.
fn has_small_pages_by(folder: &std::path::Path) -> bool {
    let is_small = |path: std::path::PathBuf| match std::fs::read_to_string(path) {
        Ok(chosen) => ["[always]", "[within_size]", "[force]"]
            .iter()
            .all(|large| !chosen.contains(large)),
        // Not all of what is there are sizes, and not every size says so.
        Err(error) => matches!(
            error.kind(),
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
        ),
    };
    let sizes = match std::fs::read_dir(folder) {
        Ok(sizes) => sizes,
        // A kernel that has none, if this is where one says so.
        Err(error) => {
            return error.kind() == std::io::ErrorKind::NotFound
                && folder.parent().is_some_and(std::path::Path::is_dir);
        }
    };
    is_small(folder.join("shmem_enabled"))
        && sizes
            .into_iter()
            .all(|size| size.is_ok_and(|size| is_small(size.path().join("shmem_enabled"))))
}

/// A mapped range of the file.
#[derive(Debug)]
struct Extent {
    file: &'static File,
    start: NonNull<u8>,
    bytes: usize,
    offset: u64,
}

// SAFETY: an address range of the process, bound to no thread, which is only read.
unsafe impl Send for Extent {}
// SAFETY: as above.
unsafe impl Sync for Extent {}

impl Extent {
    /// One of at least `bytes` bytes.
    fn new(file: &'static File, bytes: usize) -> Result<Self, Errno> {
        let bytes = bytes.max(EXTENT);
        let bytes = bytes.checked_next_multiple_of(rustix::param::page_size());
        let bytes = bytes.ok_or(Errno::NOMEM)?;
        if !has_small_pages() {
            return Err(Errno::NOTSUP);
        }
        let mut mapped = file.mapped.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = file.next.lock().unwrap_or_else(PoisonError::into_inner);
        let end = next.checked_add(bytes as u64).filter(|end| *end <= FILE);
        let (offset, end) = (*next, end.ok_or(Errno::NOSPC)?);
        if mapped.len() >= MOST_EXTENTS {
            return Err(Errno::NOMEM);
        }
        let (protection, flags) = (ProtFlags::READ, MapFlags::SHARED | MapFlags::NORESERVE);
        let place = std::ptr::null_mut();
        // SAFETY: the address is the kernel's choice (null hint, no MAP_FIXED), so no memory that Rust knows of is touched.
        let start = unsafe { mmap(place, bytes, protection, flags, &file.fd, offset) }?;
        let start = NonNull::new(start.cast::<u8>()).ok_or(Errno::NOMEM)?;
        // Should small pages become large ones some day, these do not. It fails where there are no large ones.
        // SAFETY: exactly what `mmap` returned; the advice changes nothing of what is in it.
        let _ = unsafe { madvise(start.as_ptr().cast(), bytes, Advice::LinuxNoHugepage) };
        *next = end;
        mapped.insert(start.as_ptr().addr(), (bytes, offset));
        Ok(Self {
            file,
            start,
            bytes,
            offset,
        })
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        let mut mapped = self
            .file
            .mapped
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        mapped.remove(&self.start.as_ptr().addr());
        // SAFETY: exactly what `mmap` returned, unmapped once; every `Media` that could access it holds an `Arc` of `self`. An error is impossible for
        // such a range, and there is nothing to be done about one.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
        drop(mapped);
        self.file.free(self.offset, self.bytes);
    }
}

/// Keeps media, each behind the one before as long as there is room: what is to be sent together lies together.
#[derive(Debug, Default)]
pub struct MediaRun {
    extent: Option<Arc<Extent>>,
    used: usize,
}

impl MediaRun {
    /// Opens what media is kept in, which else is opened for the first of it, where a process that runs out of descriptors may have none left. Says
    /// whether the system has something of the kind.
    pub fn open() -> bool {
        File::of_process().is_some()
    }

    /// A copy of `bytes` that a socket can be given; none where they are fewer than [`LEAST_MEDIA`] or than four pages, or the system has nothing of the kind:
    /// no memory, no descriptor, no place in the address space, or no small pages.
    pub fn keep(&mut self, bytes: &[u8]) -> Option<Media> {
        (bytes.len() >= LEAST_MEDIA.max(4 * rustix::param::page_size()))
            .then(|| self.keep_in(File::of_process()?, bytes).ok())
            .flatten()
    }

    fn keep_in(&mut self, file: &'static File, bytes: &[u8]) -> Result<Media, Errno> {
        let fits = |extent: &Arc<Extent>| extent.bytes - self.used >= bytes.len();
        let extent = match self.extent.take().filter(fits) {
            Some(extent) => extent,
            None => {
                self.used = 0;
                Arc::new(Extent::new(file, bytes.len())?)
            }
        };
        let from = self.used;
        if let Err(error) = file.write(bytes, extent.offset + from as u64) {
            // Nothing else is behind it, nor will be.
            let first = from.next_multiple_of(rustix::param::page_size());
            file.free(extent.offset + first as u64, extent.bytes - first);
            return Err(error);
        }
        self.used += bytes.len();
        self.extent = Some(Arc::clone(&extent));
        Ok(Media {
            extent,
            from,
            bytes: bytes.len(),
        })
    }
}

/// Media that is kept. When it is dropped, the pages that it has to itself are given back, and what it shares with a neighbour with the last of those
/// in its mapping.
#[derive(Debug)]
pub struct Media {
    extent: Arc<Extent>,
    from: usize,
    bytes: usize,
}

impl AsRef<[u8]> for Media {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `from` is inside of the extent: `keep_in` has found room there for all the bytes.
        let start = unsafe { self.extent.start.as_ptr().add(self.from) };
        // SAFETY: `bytes` bytes from `start` are mapped for as long as the extent lives, which `self` holds; they can't be cut off (the file is sealed),
        // were written before `self` was made, and are not written again: each `Media` has a range of its own, no offset is used twice, and `drop` alone
        // gives its whole pages back. The file's descriptor is not handed out, and who opens it through /proc may write to all of this process's memory
        // anyway.
        unsafe { std::slice::from_raw_parts(start, self.bytes) }
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        let page = rustix::param::page_size();
        let first = self.from.next_multiple_of(page);
        let end = (self.from + self.bytes) / page * page;
        if first < end {
            let offset = self.extent.offset + first as u64;
            self.extent.file.free(offset, end - first);
        }
    }
}

/// Where slices of media that follow one another are: what a socket can be given for them.
#[derive(Debug)]
pub struct MediaPlace<'a> {
    file: &'static File,
    offset: u64,
    bytes: usize,
    slices: PhantomData<&'a [u8]>,
}

impl<'a> MediaPlace<'a> {
    /// The place of `slice`, if that is of [`Media`].
    pub fn of(slice: &'a [u8]) -> Option<Self> {
        Self::inside(File::of_process()?, slice)
    }

    fn inside(file: &'static File, slice: &'a [u8]) -> Option<Self> {
        Some(Self {
            file,
            offset: file.offset_of(slice)?,
            bytes: slice.len(),
            slices: PhantomData,
        })
    }

    /// Goes on over `next`, if that is of media and right behind.
    pub fn extend(&mut self, next: &'a [u8]) -> bool {
        let follows = self.file.offset_of(next) == Some(self.offset + self.bytes as u64);
        if follows {
            self.bytes += next.len();
        }
        follows
    }

    /// Gives `socket` as much of it as that has room for; says how many bytes. They are not copied.
    ///
    /// # Errors
    /// `AGAIN` where a socket that does not block has no room, and what else the system says.
    pub fn send_into(&self, socket: impl AsFd) -> Result<usize, Errno> {
        let mut offset = self.offset;
        sendfile(socket, &self.file.fd, Some(&mut offset), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// One of the test's own. That it stays is seen by who looks for leaks.
    fn file() -> &'static File {
        static ALL: Mutex<Vec<&File>> = Mutex::new(Vec::new());
        let file = Box::leak(Box::new(File::new().unwrap()));
        ALL.lock().unwrap().push(file);
        file
    }

    fn marked(mark: u8, bytes: usize) -> Vec<u8> {
        (0..bytes)
            .map(|at| mark.wrapping_add(at.to_le_bytes()[1]))
            .collect()
    }

    /// Bytes of memory that the file has.
    fn taken(file: &File) -> u64 {
        let blocks = rustix::fs::fstat(&file.fd).unwrap().st_blocks;
        u64::try_from(blocks).unwrap() * 512
    }

    #[test]
    fn media_stays_as_it_is_whatever_becomes_of_its_neighbours() {
        let (file, mut run) = (file(), MediaRun::default());
        let mut kept: Vec<_> = (0..200_u8)
            .map(|mark| {
                let bytes = marked(mark, 16_000 + 100 * usize::from(mark));
                Some((run.keep_in(file, &bytes).unwrap(), bytes))
            })
            .collect();
        let check = |kept: &[Option<(Media, Vec<u8>)>]| {
            for (media, bytes) in kept.iter().flatten() {
                assert_eq!(media.as_ref(), bytes);
            }
        };
        for gone in [0, 2, 3, 100, 199, 150] {
            kept[gone] = None;
            check(&kept);
        }
        kept.iter_mut().step_by(2).for_each(|one| *one = None);
        check(&kept);
    }

    #[test]
    fn memory_is_given_back_page_by_page_and_the_rest_with_the_mapping() {
        let (file, mut run) = (file(), MediaRun::default());
        let page = rustix::param::page_size() as u64;
        let mut kept: Vec<_> = (0..100)
            .map(|mark| run.keep_in(file, &marked(mark, 50_000)).unwrap())
            .collect();
        let (all, mappings) = (taken(file), file.mapped.read().unwrap().len());
        assert!((5_000_000..5_000_000 + mappings as u64 * page).contains(&all));
        kept.truncate(50);
        let half = taken(file);
        assert!(half <= 2_500_000 + 2 * 50 * page, "{half} of {all}");
        kept.clear();
        assert!(taken(file) <= 50 * page, "the run's own mapping is left");
        drop(run);
        assert_eq!((taken(file), file.mapped.read().unwrap().len()), (0, 0));
    }

    #[test]
    fn what_is_large_has_a_mapping_of_its_size_and_what_is_small_or_impossible_has_none() {
        let (file, mut run) = (file(), MediaRun::default());
        let large = run.keep_in(file, &marked(1, 3 * EXTENT + 1)).unwrap();
        assert_eq!(large.as_ref(), marked(1, 3 * EXTENT + 1));
        assert!(run.keep(&[0; LEAST_MEDIA - 1]).is_none());
        *file.next.lock().unwrap() = FILE - 1000;
        assert!(run.keep_in(file, &marked(2, EXTENT)).is_err());
        *file.next.lock().unwrap() = 8 * EXTENT as u64;
        let again = run.keep_in(file, &marked(3, EXTENT)).unwrap();
        assert_eq!(again.as_ref(), marked(3, EXTENT));
    }

    #[test]
    fn large_pages_are_seen_and_what_cant_be_read_may_be_large() {
        let folder = std::env::temp_dir().join(format!("ringgear-pages-{}", std::process::id()));
        let size = folder.join("hugepages-64kB");
        let says = |place: &std::path::Path, chosen: &str| {
            std::fs::write(place.join("shmem_enabled"), chosen).unwrap();
        };
        assert!(has_small_pages_by(&folder), "a kernel without any");
        assert!(!has_small_pages_by(&folder.join("none").join("such")));
        std::fs::create_dir_all(&size).unwrap();
        std::fs::write(folder.join("defrag"), "").unwrap();
        assert!(has_small_pages_by(&folder));
        says(&folder, "always within_size advise [never] deny force");
        says(&size, "always inherit within_size advise [never]");
        assert!(has_small_pages_by(&folder));
        for large in ["[always] never", "always [within_size] never"] {
            says(&size, large);
            assert!(!has_small_pages_by(&folder), "{large}");
        }
        says(&size, "always [never]");
        says(&folder, "always [force]");
        assert!(!has_small_pages_by(&folder));
        std::fs::remove_file(folder.join("shmem_enabled")).unwrap();
        std::fs::create_dir(folder.join("shmem_enabled")).unwrap();
        assert!(!has_small_pages_by(&folder), "it can't be read");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn slices_of_media_are_found_and_joined_and_others_are_not() {
        let (file, mut run) = (file(), MediaRun::default());
        let [one, two] = [1, 2].map(|mark| run.keep_in(file, &marked(mark, 20_000)).unwrap());
        let (one, two) = (one.as_ref(), two.as_ref());
        let mut place = MediaPlace::inside(file, &one[10..]).unwrap();
        assert!(!place.extend(&one[10..]) && !place.extend(&two[1..]));
        assert!(place.extend(&two[..5]));
        assert_eq!((place.offset, place.bytes), (10, 19_995));
        assert!(MediaPlace::inside(file, &marked(1, 20_000)).is_none());
        let another = MediaRun::default().keep_in(file, one).unwrap();
        assert!(!place.extend(another.as_ref()));
    }

    #[test]
    fn a_socket_has_what_it_was_given_though_it_is_dropped_and_more_is_kept() {
        let (file, mut run) = (file(), MediaRun::default());
        let bytes = marked(9, 150_001);
        let before = run.keep_in(file, &marked(8, 20_001)).unwrap();
        let media = run.keep_in(file, &bytes).unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let place = MediaPlace::inside(file, media.as_ref()).unwrap();
        let given = place.send_into(&near).unwrap();
        assert!(given > 0 && given <= bytes.len());
        drop((before, media));
        let _more: Vec<_> = (0..20)
            .map(|mark| run.keep_in(file, &marked(mark, 200_000)).unwrap())
            .collect();
        drop(near);
        let mut read = Vec::new();
        far.read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes[..given]);
    }
}
