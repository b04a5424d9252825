// Linux calls that Swift's Glibc module does not show, because glibc declares them outside what that module includes.
#ifndef C_LINUX_H
#define C_LINUX_H

/// eventfd(2), empty, non-blocking, closed on exec; -1 on failure.
int linux_eventfd(void);

/// memfd_create(2), closed on exec; -1 on failure.
int linux_memfd(const char *name);

/// Names the calling thread, as far as 15 bytes go.
void linux_name_thread(const char *name);

#endif
