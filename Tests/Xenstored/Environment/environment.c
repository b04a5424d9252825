// libxenstore learns from the environment which xenstored to talk to, and asks at every xs_open. Tests run on many threads,
// and setenv may move the environment under one that reads it. So the variable is set once, before there is a second
// thread, and never again: to a symbolic link, which Xenstored.connect() points to its own socket.
#include "xenstored-environment.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char link_path[64];

const char *xenstored_socket_link(void) { return link_path; }

__attribute__((constructor)) static void set_before_main(void) {
  snprintf(link_path, sizeof link_path, "/tmp/swift-xen-%ld.xenstored", (long)getpid());
  setenv("XENSTORED_PATH", link_path, 1);
}
