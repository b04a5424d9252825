// What Swift cannot say by itself about shared memory.
#ifndef C_SHARED_MEMORY_H
#define C_SHARED_MEMORY_H

/// Keeps the compiler from moving or repeating memory accesses across this point. A value loaded before it
/// is never loaded again after it: that is what makes one copy out of a ring slot one copy
/// (xen/include/public/io/ring.h, RING_COPY_REQUEST, and XSA-155). Emits no instruction.
static inline void shared_memory_compiler_barrier(void) { __asm__ volatile("" ::: "memory"); }

/// The same for a copy in memory at `copy`, which the compiler must take for read and changed here: it cannot leave the
/// copy out and read the original. Emits no instruction. An array of unknown length is the compilers' way to say "all that is
/// there"; the address itself need not be in a register.
static inline void shared_memory_copied(void *copy) {
  __asm__ volatile("" : "+m"(*(char (*)[])copy) : : "memory");
}

/// Has the cache line at `address` brought here to be written, and does not wait for it. A hint: it changes nothing, and reads
/// nothing that the program sees.
static inline void shared_memory_expect_write(const void *address) {
#ifdef __x86_64__
  // The compiler's own would bring the line only to be read, unless it were told of a newer processor.
  __asm__ volatile("prefetchw (%0)" : : "r"(address));
#else
  __builtin_prefetch(address, 1);
#endif
}

/// The same for all cache lines of so many bytes. One after the other: in fours they come later.
static inline void shared_memory_expect_write_all(const char *address, unsigned long byte_count) {
  for (const char *line = address; line < address + byte_count; line += 64) shared_memory_expect_write(line);
}

/// For whoever looks at shared memory again and again: leaves the processor's units to others for some ten cycles.
static inline void shared_memory_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}

#endif
