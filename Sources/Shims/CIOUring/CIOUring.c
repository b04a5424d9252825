#define _GNU_SOURCE
#include "CIOUring.h"

#include <errno.h>

#if __has_include(<liburing.h>)

#include <liburing.h>
#include <stdlib.h>

struct io_uring_file {
  struct io_uring ring;
  int file;
  unsigned flags;
};

int io_uring_file_open(struct io_uring_file **opened, int file, unsigned capacity) {
  // Newest first: not interrupted for completions (Linux 5.19), then as every kernel has it. Rings that one thread alone may
  // use will not do: when a queue's thread has ended, another one waits for what is left.
  static const unsigned flags[] = {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL, 0};
  struct io_uring_file *ring = calloc(1, sizeof *ring);
  int result = -ENOMEM;
  for (unsigned i = 0; ring && result != 0 && i < sizeof flags / sizeof *flags; i++) {
    struct io_uring_params parameters = {.flags = flags[i]};
    result = io_uring_queue_init_params(capacity, &ring->ring, &parameters);
    // Plain reads and writes came with this (Linux 5.6).
    if (result == 0 && !(parameters.features & IORING_FEAT_RW_CUR_POS)) {
      io_uring_queue_exit(&ring->ring);
      result = -ENOSYS;
    }
  }
  if (result != 0) {
    free(ring);
    return result;
  }
  ring->file = file;
  // Registered, so that the kernel does not look it up for each operation.
  if (file >= 0 && io_uring_register_files(&ring->ring, &file, 1) == 0) {
    ring->file = 0;
    ring->flags = IOSQE_FIXED_FILE;
  }
  *opened = ring;
  return 0;
}

void io_uring_file_close(struct io_uring_file *ring) {
  io_uring_queue_exit(&ring->ring);
  free(ring);
}

int io_uring_file_descriptor(const struct io_uring_file *ring) { return ring->ring.ring_fd; }

static int finish(struct io_uring_file *ring, struct io_uring_sqe *entry, unsigned long long number) {
  io_uring_sqe_set_data64(entry, number);
  io_uring_sqe_set_flags(entry, ring->flags);
  return 1;
}

#define PUT(prepare, ...)                                          \
  struct io_uring_sqe *entry = io_uring_get_sqe(&ring->ring);      \
  if (!entry) return 0;                                            \
  prepare(__VA_ARGS__);                                            \
  return finish(ring, entry, number)

int io_uring_file_move(struct io_uring_file *ring, int writing, void *bytes, unsigned count, unsigned long long offset,
                       unsigned long long number) {
  PUT(io_uring_prep_rw, writing ? IORING_OP_WRITE : IORING_OP_READ, entry, ring->file, bytes, count, offset);
}

int io_uring_file_movev(struct io_uring_file *ring, int writing, const struct iovec *vectors, unsigned count,
                        unsigned long long offset, unsigned long long number) {
  PUT(io_uring_prep_rw, writing ? IORING_OP_WRITEV : IORING_OP_READV, entry, ring->file, vectors, count, offset);
}

int io_uring_file_datasync(struct io_uring_file *ring, unsigned long long number) {
  PUT(io_uring_prep_fsync, entry, ring->file, IORING_FSYNC_DATASYNC);
}

int io_uring_file_allocate(struct io_uring_file *ring, int mode, unsigned long long offset, unsigned long long count,
                           unsigned long long number) {
  PUT(io_uring_prep_fallocate, entry, ring->file, mode, offset, count);
}

int io_uring_file_submit(struct io_uring_file *ring) {
  int result = io_uring_submit(&ring->ring);
  return result < 0 ? result : io_uring_sq_ready(&ring->ring) > 0;
}

int io_uring_file_next(struct io_uring_file *ring, unsigned long long *number, int *result) {
  struct io_uring_cqe *entry;
  if (io_uring_peek_cqe(&ring->ring, &entry) != 0) return 0;
  *number = entry->user_data;
  *result = entry->res;
  io_uring_cqe_seen(&ring->ring, entry);
  return 1;
}

#else

int io_uring_file_open(struct io_uring_file **opened, int file, unsigned capacity) {
  (void)opened, (void)file, (void)capacity;
  return -ENOTSUP;
}

// Without a ring nobody calls these.
void io_uring_file_close(struct io_uring_file *ring) { (void)ring; }

int io_uring_file_descriptor(const struct io_uring_file *ring) { return (void)ring, -1; }

int io_uring_file_move(struct io_uring_file *ring, int writing, void *bytes, unsigned count, unsigned long long offset,
                       unsigned long long number) {
  return (void)ring, (void)writing, (void)bytes, (void)count, (void)offset, (void)number, 0;
}

int io_uring_file_movev(struct io_uring_file *ring, int writing, const struct iovec *vectors, unsigned count,
                        unsigned long long offset, unsigned long long number) {
  return (void)ring, (void)writing, (void)vectors, (void)count, (void)offset, (void)number, 0;
}

int io_uring_file_datasync(struct io_uring_file *ring, unsigned long long number) {
  return (void)ring, (void)number, 0;
}

int io_uring_file_allocate(struct io_uring_file *ring, int mode, unsigned long long offset, unsigned long long count,
                           unsigned long long number) {
  return (void)ring, (void)mode, (void)offset, (void)count, (void)number, 0;
}

int io_uring_file_submit(struct io_uring_file *ring) { return (void)ring, -ENOTSUP; }

int io_uring_file_next(struct io_uring_file *ring, unsigned long long *number, int *result) {
  return (void)ring, (void)number, (void)result, 0;
}

#endif
