#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/magic.h>
#include <linux/virtio_net.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

int linux_eventfd(void) { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }

int linux_epoll(void) { return epoll_create1(EPOLL_CLOEXEC); }

int linux_epoll_watch(int epoll, int descriptor, int reads, int writes) {
  struct epoll_event event = {.events = (reads ? EPOLLIN : 0) | (writes ? EPOLLOUT : 0)};
  int result = epoll_ctl(epoll, EPOLL_CTL_MOD, descriptor, &event);
  return result != 0 && errno == ENOENT ? epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event) : result;
}

int linux_timer(void) { return timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC); }

void linux_timer_set(int timer, unsigned long long nanoseconds) {
  struct itimerspec when = {.it_value = {nanoseconds / 1000000000, nanoseconds % 1000000000}};
  timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

int linux_memfd(const char *name) { return memfd_create(name, MFD_CLOEXEC); }

int linux_accept(int socket) {
  return accept4(socket, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

void linux_name_thread(const char *name) {
  char shortened[16] = {0};
  strncpy(shortened, name, sizeof shortened - 1);
  pthread_setname_np(pthread_self(), shortened);
}

static struct ifreq named(const char *name) {
  struct ifreq request = {0};
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  return request;
}

_Static_assert(sizeof(struct linux_virtio_net_header) == sizeof(struct virtio_net_hdr), "the kernel's header");

int linux_tap_attach(int descriptor, const char *name, int is_multi_queue) {
  struct ifreq request = named(name);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (is_multi_queue ? IFF_MULTI_QUEUE : 0);
  // Somebody may have left a device that stays with another size.
  int size = sizeof(struct linux_virtio_net_header);
  return ioctl(descriptor, TUNSETIFF, &request) != 0 ? -1 : ioctl(descriptor, TUNSETVNETHDRSZ, &size);
}

int linux_tap_detach(int descriptor) {
  struct ifreq request = {.ifr_flags = IFF_DETACH_QUEUE};
  return ioctl(descriptor, TUNSETQUEUE, &request);
}

int linux_tap_set_offloads(int descriptor, int checksum, int tcpv4, int tcpv6) {
  unsigned long offloads = (checksum ? TUN_F_CSUM : 0) | (tcpv4 ? TUN_F_TSO4 : 0) | (tcpv6 ? TUN_F_TSO6 : 0);
  return ioctl(descriptor, TUNSETOFFLOAD, offloads);
}

long linux_tap_write(int descriptor, const struct linux_virtio_net_header *header, const void *bytes, unsigned long count) {
  struct iovec parts[] = {{(void *)header, sizeof *header}, {(void *)bytes, count}};
  return writev(descriptor, parts, 2);
}

long linux_tap_read(int descriptor, struct linux_virtio_net_header *header, void *bytes, unsigned long count) {
  struct iovec parts[] = {{header, sizeof *header}, {bytes, count}};
  return readv(descriptor, parts, 2);
}

int linux_tap_set_carrier(int descriptor, int is_up) { return ioctl(descriptor, TUNSETCARRIER, &is_up); }

int linux_set_mtu(int socket, const char *name, int mtu) {
  struct ifreq request = named(name);
  request.ifr_mtu = mtu;
  return ioctl(socket, SIOCSIFMTU, &request);
}

int linux_is_in_memory(int descriptor) {
  struct statfs status;
  return fstatfs(descriptor, &status) == 0 && (status.f_type == TMPFS_MAGIC || status.f_type == RAMFS_MAGIC);
}

int linux_direct_alignment(int descriptor, unsigned *memory, unsigned *offset) {
#ifdef STATX_DIOALIGN
  struct statx status;
  if (statx(descriptor, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 && status.stx_mask & STATX_DIOALIGN) {
    *memory = status.stx_dio_mem_align;
    *offset = status.stx_dio_offset_align;
    return 0;
  }
#endif
  return -1;
}

int linux_make_direct(int descriptor) {
  return fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_DIRECT);
}

int linux_block_device(int descriptor, unsigned long long *size, unsigned *logical, unsigned *physical) {
  int sector = 0;
  if (ioctl(descriptor, BLKGETSIZE64, size) != 0 || ioctl(descriptor, BLKSSZGET, &sector) != 0 ||
      ioctl(descriptor, BLKPBSZGET, physical) != 0)
    return -1;
  *logical = sector;
  return 0;
}

int linux_block_discard(int descriptor, unsigned long long offset, unsigned long long length, int secure) {
  unsigned long long range[2] = {offset, length};
  return ioctl(descriptor, secure ? BLKSECDISCARD : BLKDISCARD, range);
}

const int linux_punch_hole_mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

long long linux_seek_data(int descriptor, long long offset) { return lseek(descriptor, offset, SEEK_DATA); }

int linux_punch_hole(int descriptor, long long offset, long long length) {
  return fallocate(descriptor, linux_punch_hole_mode, offset, length);
}
