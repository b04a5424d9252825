// What xenstored needs of Xen, without one: preloaded into it, this answers its calls of libxenctrl, libxenevtchn and
// libxengnttab from files and sockets in the folder that XENSTORED_STUB_FOLDER names.
//
//   domain-N        exists while domain N does; domain 0 always does
//   grant-N         the page that domain N shares with xenstored (GNTTAB_RESERVED_XENSTORE), which it makes beforehand
//   events          a datagram socket, xenstored's: `struct event` raises an event in it
//   port-N-P        a datagram socket, made by domain N: gets a datagram when its port P is notified
//
// It is strict: a port that is not bound, a page that is not there or a call that makes no sense ends xenstored with a
// message. So does the end of its standard input, which its parent holds open: no xenstored outlives its test.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <xenctrl.h>
#include <xenevtchn.h>
#include <xengnttab.h>
#include <xen/grant_table.h>

// `domain` and `port` name the far end, as its owner does; the virtual interrupt has domain VIRQ_DOMAIN and port 0.
struct event { uint32_t domain, port; };
enum { VIRQ_DOMAIN = DOMID_XEN, PORT_COUNT = 64 };

static void fail(const char *what) {
  fprintf(stderr, "xenstored's stub: %s: %s\n", what, strerror(errno));
  _exit(70);
}

static struct sockaddr_un file(const char *format, ...) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  const char *folder = getenv("XENSTORED_STUB_FOLDER");
  if (!folder) errno = EINVAL, fail("XENSTORED_STUB_FOLDER is not set");
  int used = snprintf(address.sun_path, sizeof address.sun_path, "%s/", folder);
  va_list arguments;
  va_start(arguments, format);
  int more = vsnprintf(address.sun_path + used, sizeof address.sun_path - used, format, arguments);
  va_end(arguments);
  if (used + more >= (int)sizeof address.sun_path) errno = ENAMETOOLONG, fail(folder);
  return address;
}

static void *end_with_standard_input(void *unused) {
  char byte;
  while (read(STDIN_FILENO, &byte, 1) > 0 || errno == EINTR) errno = 0;
  _exit(0);
  return unused;
}

__attribute__((constructor)) static void start(void) {
  pthread_t thread;
  errno = pthread_create(&thread, NULL, end_with_standard_input, NULL);
  if (errno) fail("cannot start a thread");
}

// Domains.

xc_interface *xc_interface_open(xentoollog_logger *logger, xentoollog_logger *domain_builder_logger, unsigned flags) {
  (void)logger, (void)domain_builder_logger, (void)flags;
  static char handle;
  return (xc_interface *)&handle;
}

int xc_interface_close(xc_interface *handle) { return (void)handle, 0; }

int xc_domain_getinfo(xc_interface *handle, uint32_t first, unsigned int count, xc_dominfo_t *info) {
  (void)handle;
  if (count != 1) errno = EINVAL, fail("xc_domain_getinfo of several domains");
  struct sockaddr_un name = file("domain-%u", first);
  if (first != 0 && access(name.sun_path, F_OK) != 0) return 0;
  memset(info, 0, sizeof *info);
  info->domid = first;
  info->running = 1;
  return 1;
}

// Event channels: xenstored's ports are the places in `far_ends`.

static struct { bool bound; struct event end; } far_ends[PORT_COUNT];
static int events = -1;

static xenevtchn_port_or_error_t bind_port(uint32_t domain, uint32_t port) {
  for (int mine = 1; mine < PORT_COUNT; mine++) {
    if (far_ends[mine].bound) continue;
    far_ends[mine].bound = true;
    far_ends[mine].end = (struct event){domain, port};
    return mine;
  }
  errno = ENOSPC;
  return -1;
}

static void check_bound(evtchn_port_t port, const char *what) {
  if (port == 0 || port >= PORT_COUNT || !far_ends[port].bound) errno = ENOENT, fail(what);
}

xenevtchn_handle *xenevtchn_open(xentoollog_logger *logger, unsigned int flags) {
  (void)logger, (void)flags;
  static char handle;
  struct sockaddr_un address = file("events");
  events = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (events < 0 || bind(events, (struct sockaddr *)&address, sizeof address) != 0) fail(address.sun_path);
  return (xenevtchn_handle *)&handle;
}

xenevtchn_handle *xenevtchn_fdopen(struct xentoollog_logger *logger, int descriptor, unsigned flags) {
  (void)logger, (void)descriptor, (void)flags;
  errno = ENOSYS;
  fail("there is no live update");
  return NULL;
}

int xenevtchn_fd(xenevtchn_handle *handle) { return (void)handle, events; }

xenevtchn_port_or_error_t xenevtchn_bind_virq(xenevtchn_handle *handle, unsigned int virq) {
  (void)handle, (void)virq;
  return bind_port(VIRQ_DOMAIN, 0);
}

xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *handle, uint32_t domain, evtchn_port_t port) {
  (void)handle;
  struct sockaddr_un name = file("port-%u-%u", domain, port);
  if (domain != 0 && access(name.sun_path, F_OK) != 0) {
    errno = EINVAL;
    return -1;
  }
  return bind_port(domain, port);
}

int xenevtchn_unbind(xenevtchn_handle *handle, evtchn_port_t port) {
  (void)handle;
  check_bound(port, "unbind of a port that is not bound");
  far_ends[port].bound = false;
  return 0;
}

int xenevtchn_notify(xenevtchn_handle *handle, evtchn_port_t port) {
  (void)handle;
  check_bound(port, "notify of a port that is not bound");
  struct event end = far_ends[port].end;
  struct sockaddr_un address = file("port-%u-%u", end.domain, end.port);
  // Events coalesce, and a domain may be gone: a datagram that cannot be put changes nothing.
  sendto(events, &end, sizeof end, MSG_DONTWAIT, (struct sockaddr *)&address, sizeof address);
  return 0;
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *handle) {
  (void)handle;
  struct event end;
  for (;;) {
    if (recv(events, &end, sizeof end, 0) != sizeof end) fail("an event is malformed");
    for (int mine = 1; mine < PORT_COUNT; mine++) {
      if (far_ends[mine].bound && memcmp(&far_ends[mine].end, &end, sizeof end) == 0) return mine;
    }
    errno = ENOENT;
    fail("an event comes from a port that is not bound");
  }
}

int xenevtchn_unmask(xenevtchn_handle *handle, evtchn_port_t port) {
  (void)handle;
  // Releasing a domain, for which a virtual interrupt asked, may have unbound the very port.
  if (port == 0 || port >= PORT_COUNT) errno = ENOENT, fail("unmask of a port that cannot be");
  return 0;
}

// Grants: one page a domain.

xengnttab_handle *xengnttab_open(struct xentoollog_logger *logger, unsigned flags) {
  (void)logger, (void)flags;
  static char handle;
  return (xengnttab_handle *)&handle;
}

int xengnttab_close(xengnttab_handle *handle) { return (void)handle, 0; }

int xengnttab_set_max_grants(xengnttab_handle *handle, uint32_t count) { return (void)handle, (void)count, 0; }

void *xengnttab_map_grant_ref(xengnttab_handle *handle, uint32_t domain, uint32_t reference, int protection) {
  (void)handle;
  if (reference != GNTTAB_RESERVED_XENSTORE) errno = EINVAL, fail("a reference that is not the store's");
  struct sockaddr_un name = file("grant-%u", domain);
  int descriptor = open(name.sun_path, O_RDWR | O_CLOEXEC);
  if (descriptor < 0) return NULL;
  void *page = mmap(NULL, XC_PAGE_SIZE, protection, MAP_SHARED, descriptor, 0);
  close(descriptor);
  return page == MAP_FAILED ? NULL : page;
}

int xengnttab_unmap(xengnttab_handle *handle, void *address, uint32_t count) {
  (void)handle;
  if (munmap(address, (size_t)count * XC_PAGE_SIZE) != 0) fail("unmap of what is not mapped");
  return 0;
}

// Domain 0's own page and port, which its kernel offers in two files.

static bool ends_with(const char *path, const char *name) {
  size_t length = strlen(path), end = strlen(name);
  return length >= end && strcmp(path + length - end, name) == 0;
}

static int file_of_domain_0(const char *name, const char *text) {
  int descriptor = memfd_create(name, MFD_CLOEXEC);
  if (descriptor < 0 || ftruncate(descriptor, text ? 0 : XC_PAGE_SIZE) != 0) fail(name);
  if (text && (dprintf(descriptor, "%s", text) < 0 || lseek(descriptor, 0, SEEK_SET) != 0)) fail(name);
  return descriptor;
}

int open(const char *path, int flags, ...) {
  if (ends_with(path, "/xsd_port")) return file_of_domain_0("xsd_port", "1\n");
  if (ends_with(path, "/xsd_kva")) return file_of_domain_0("xsd_kva", NULL);
  va_list arguments;
  va_start(arguments, flags);
  mode_t mode = va_arg(arguments, mode_t);
  va_end(arguments);
  int (*next)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
  if (!next) errno = ENOSYS, fail("open");
  return next(path, flags, mode);
}
