// An io_uring on one file, through liburing (package liburing-dev).
#ifndef C_IO_URING_H
#define C_IO_URING_H

#include <sys/uio.h>

struct io_uring_file;

/// A ring that has room for `capacity` operations that are not yet begun; 0, or an error number, negative: -ENOTSUP when this
/// was built without liburing.
int io_uring_file_open(struct io_uring_file **ring, int file, unsigned capacity);

/// What the kernel has in hand goes on.
void io_uring_file_close(struct io_uring_file *ring);

/// Readable when something is completed.
int io_uring_file_descriptor(const struct io_uring_file *ring);

// Each puts an operation, of which the completion brings `number`; 0 when the ring is full.
int io_uring_file_move(struct io_uring_file *ring, int writing, void *bytes, unsigned count, unsigned long long offset,
                       unsigned long long number);
int io_uring_file_movev(struct io_uring_file *ring, int writing, const struct iovec *vectors, unsigned count,
                        unsigned long long offset, unsigned long long number);
int io_uring_file_datasync(struct io_uring_file *ring, unsigned long long number);
int io_uring_file_allocate(struct io_uring_file *ring, int mode, unsigned long long offset, unsigned long long count,
                           unsigned long long number);

/// Begins what was put; vectors are free then. 0 when all of it was begun, 1 when some is left, or an error number, negative.
int io_uring_file_submit(struct io_uring_file *ring);

/// Takes what was completed: its number, and a count or an error number, negative; 0 when there is nothing.
int io_uring_file_next(struct io_uring_file *ring, unsigned long long *number, int *result);

#endif
