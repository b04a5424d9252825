#define _GNU_SOURCE
#include "CLinux.h"

#include <linux/if.h>
#include <linux/if_tun.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

int linux_eventfd(void) { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }

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

int linux_tap_attach(int descriptor, const char *name) {
  struct ifreq request = named(name);
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  return ioctl(descriptor, TUNSETIFF, &request);
}

int linux_tap_set_carrier(int descriptor, int is_up) { return ioctl(descriptor, TUNSETCARRIER, &is_up); }

int linux_set_mtu(int socket, const char *name, int mtu) {
  struct ifreq request = named(name);
  request.ifr_mtu = mtu;
  return ioctl(socket, SIOCSIFMTU, &request);
}
