// libxenstore learns from the environment which xenstored to talk to, and asks at every xs_open. Tests run on many threads,
// and setenv may move the environment under one that reads it. So the variable is set once, before there is a second
// thread, and never again: to a symbolic link, which Xenstored.connect() points to its own socket.
#include "xenstored-environment.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static char link_path[64];

const char *xenstored_socket_link(void) { return link_path; }

__attribute__((constructor)) static void set_before_main(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  // Numbers of processes come again, and containers that share /tmp have the same ones: a link that a killed process left
  // is nobody else's name.
  snprintf(link_path, sizeof link_path, "/tmp/swift-xen-%ld-%lx%08lx", (long)getpid(), (long)now.tv_sec, now.tv_nsec);
  setenv("XENSTORED_PATH", link_path, 1);
}
