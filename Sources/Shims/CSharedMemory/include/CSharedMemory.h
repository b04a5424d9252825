// The one thing about shared memory that Swift cannot say by itself.
#ifndef C_SHARED_MEMORY_H
#define C_SHARED_MEMORY_H

/// Keeps the compiler from moving or repeating memory accesses across this point. A value loaded before it
/// is never loaded again after it: that is what makes one copy out of a ring slot one copy
/// (xen/include/public/io/ring.h, RING_COPY_REQUEST, and XSA-155). Emits no instruction.
static inline void shared_memory_compiler_barrier(void) { __asm__ volatile("" ::: "memory"); }

#endif
