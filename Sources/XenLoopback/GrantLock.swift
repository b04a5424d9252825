import Glibc

/// A lock that many hold at once as long as they only look: copies go on side by side, as they do on a real Xen, and whatever
/// is shared, mapped or ended waits for them.
///
/// Sendable: the value is changed only by who holds the lock alone, and looked at only by who holds it.
@safe final class GrantLock<Value: ~Copyable>: @unchecked Sendable {
  private let lock = UnsafeMutablePointer<pthread_rwlock_t>.allocate(capacity: 1)
  private let value = UnsafeMutablePointer<Value>.allocate(capacity: 1)

  init(_ value: consuming sending Value) {
    // Safe: both were just allocated. Who wants it alone comes before those who want to look from then on: copies that
    // overlap for ever would else keep everybody from ending a region.
    unsafe self.value.initialize(to: value)
    var attributes = pthread_rwlockattr_t()
    unsafe pthread_rwlockattr_init(&attributes)
    unsafe pthread_rwlockattr_setkind_np(&attributes, CInt(PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP))
    let status = unsafe pthread_rwlock_init(lock, &attributes)
    precondition(status == 0, "a lock can be made")
    unsafe pthread_rwlockattr_destroy(&attributes)
  }

  deinit {
    // Safe: whoever held it has let go, since nobody knows it any more.
    unsafe pthread_rwlock_destroy(lock)
    unsafe lock.deallocate()
    unsafe value.deinitialize(count: 1)
    unsafe value.deallocate()
  }

  /// To change the value.
  func withLock<Result: ~Copyable, Failure: Error>(
    _ body: (inout Value) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    // Safe: the lock is held by nobody else until `body` is done, and it was made in the initialiser.
    unsafe pthread_rwlock_wrlock(lock)
    defer { unsafe pthread_rwlock_unlock(lock) }
    return try unsafe body(&value.pointee)
  }

  /// To look at the value.
  func withReadLock<Result: ~Copyable, Failure: Error>(
    _ body: (borrowing Value) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    // Safe: nobody changes the value until `body` is done.
    unsafe pthread_rwlock_rdlock(lock)
    defer { unsafe pthread_rwlock_unlock(lock) }
    return try unsafe body(value.pointee)
  }
}
