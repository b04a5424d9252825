#ifndef XENSTORED_ENVIRONMENT_H
#define XENSTORED_ENVIRONMENT_H

/// Where libxenstore looks for xenstored's socket in this process: a name that nobody else uses, and that is there only
/// while a test opens a connection.
const char *xenstored_socket_link(void);

#endif
