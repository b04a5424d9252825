// Linux calls that Swift's Glibc module does not show, because glibc declares them outside what that module includes.
#ifndef C_LINUX_H
#define C_LINUX_H

/// eventfd(2), empty, non-blocking, closed on exec; -1 on failure.
int linux_eventfd(void);

/// epoll(7), of nothing yet, closed on exec; -1 on failure.
int linux_epoll(void);

/// Has `epoll` be readable while `descriptor` can be read (`reads`) or written (`writes`; each 0 or 1); -1 on failure.
int linux_epoll_watch(int epoll, int descriptor, int reads, int writes);

/// timerfd_create(2) on the monotonic clock, closed on exec; -1 on failure.
int linux_timer(void);

/// Has `timer` be readable from that instant of the clock on, and not before; never when it is 0.
void linux_timer_set(int timer, unsigned long long nanoseconds);

/// memfd_create(2), closed on exec; -1 on failure.
int linux_memfd(const char *name);

/// accept4(2): the next connection of a listening socket, non-blocking, closed on exec; -1 on failure.
int linux_accept(int socket);

/// Names the calling thread, as far as 15 bytes go.
void linux_name_thread(const char *name);

/// What stands before each packet from or to a TAP device: `struct virtio_net_hdr` of linux/virtio_net.h, in the machine's
/// byte order.
struct linux_virtio_net_header {
  unsigned char flags;
  unsigned char gso_type;
  unsigned short hdr_len;
  unsigned short gso_size;
  unsigned short csum_start;
  unsigned short csum_offset;
};

/// Makes `descriptor`, one of /dev/net/tun, the TAP device `name`, or a queue of it, which is created where there is none
/// (TUNSETIFF, without packet information, with a header of linux_virtio_net_header's size); -1 on failure.
int linux_tap_attach(int descriptor, const char *name, int is_multi_queue);

/// Has the device give nothing more to a queue of it (TUNSETQUEUE); -1 on failure, as of a device that has one.
int linux_tap_detach(int descriptor);

/// Says what a TAP device may give unfinished (TUNSETOFFLOAD; each 0 or 1), of which the latter two ask for the first; -1 on
/// failure.
int linux_tap_set_offloads(int descriptor, int checksum, int tcpv4, int tcpv6);

/// writev(2) of a packet's header and the packet.
long linux_tap_write(int descriptor, const struct linux_virtio_net_header *header, const void *bytes, unsigned long count);

/// readv(2) of a packet's header and the packet.
long linux_tap_read(int descriptor, struct linux_virtio_net_header *header, void *bytes, unsigned long count);

/// Says whether the link of a TAP device is up (TUNSETCARRIER; 0 or 1); -1 on failure.
int linux_tap_set_carrier(int descriptor, int is_up);

/// Sets the MTU of the interface `name` (SIOCSIFMTU) through any socket; -1 on failure.
int linux_set_mtu(int socket, const char *name, int mtu);

/// Whether a file's file system has no medium (tmpfs, ramfs).
int linux_is_in_memory(int descriptor);

/// What direct I/O on a file asks for (statx(2), `STATX_DIOALIGN`), in bytes: of memory addresses, and of offsets and lengths;
/// -1 where the kernel does not say, and zeros where there is none.
int linux_direct_alignment(int descriptor, unsigned *memory, unsigned *offset);

/// Has everything that is done through this descriptor pass by the page cache (`O_DIRECT`); -1 on failure.
int linux_make_direct(int descriptor);

/// A block device's size, its logical and its physical sector, in bytes (BLKGETSIZE64, BLKSSZGET, BLKPBSZGET); -1 on failure.
int linux_block_device(int descriptor, unsigned long long *size, unsigned *logical, unsigned *physical);

/// BLKDISCARD or, when `secure`, BLKSECDISCARD of a block device's bytes; -1 on failure.
int linux_block_discard(int descriptor, unsigned long long offset, unsigned long long length, int secure);

/// What ``linux_punch_hole`` gives fallocate(2) as its mode.
extern const int linux_punch_hole_mode;

/// Makes a hole in a file and leaves its size (fallocate(2)); -1 on failure.
int linux_punch_hole(int descriptor, long long offset, long long length);

/// Where a file's first data is from there on (SEEK_DATA); -1 on failure, ENXIO where it has none.
long long linux_seek_data(int descriptor, long long offset);

#endif
