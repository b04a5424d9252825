// Linux calls that Swift's Glibc module does not show, because glibc declares them outside what that module includes.
#ifndef C_LINUX_H
#define C_LINUX_H

/// eventfd(2), empty, non-blocking, closed on exec; -1 on failure.
int linux_eventfd(void);

/// memfd_create(2), closed on exec; -1 on failure.
int linux_memfd(const char *name);

/// accept4(2): the next connection of a listening socket, non-blocking, closed on exec; -1 on failure.
int linux_accept(int socket);

/// Names the calling thread, as far as 15 bytes go.
void linux_name_thread(const char *name);

/// Makes `descriptor`, one of /dev/net/tun, the TAP device `name` (TUNSETIFF, without packet information), which is created
/// where there is none; -1 on failure.
int linux_tap_attach(int descriptor, const char *name);

/// Says whether the link of a TAP device is up (TUNSETCARRIER; 0 or 1); -1 on failure.
int linux_tap_set_carrier(int descriptor, int is_up);

/// Sets the MTU of the interface `name` (SIOCSIFMTU) through any socket; -1 on failure.
int linux_set_mtu(int socket, const char *name, int mtu);

#endif
