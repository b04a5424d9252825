import CLinux
import Glibc

/// What a thread of its own does, from its beginning to its end.
package protocol ThreadWork: AnyObject {
  func run()
}

extension ThreadWork {
  /// Begins ``run()`` on a new thread, which keeps this until it has returned. From then on nobody else touches what is not meant
  /// for several threads.
  ///
  /// - Parameter name: of the thread, as tools show it; its first 15 bytes count.
  /// - Returns: what is to be joined or detached, once.
  package func start(name: String) throws(ResourceError) -> pthread_t {
    // Safe: the thread takes over the one reference that is retained here.
    let argument = unsafe Unmanaged.passRetained(ThreadStart(name: name, work: self)).toOpaque()
    var handle = pthread_t()
    let created = unsafe pthread_create(
      &handle, nil,
      { argument in
        let start = unsafe Unmanaged<ThreadStart>.fromOpaque(argument!).takeRetainedValue()
        unsafe start.name.withCString { unsafe linux_name_thread($0) }
        start.work.run()
        return nil
      }, argument)
    guard created == 0 else {
      // Safe: the thread that would have taken it over was not made.
      unsafe Unmanaged<ThreadStart>.fromOpaque(argument).release()
      throw ResourceError("no thread \(name) can be made: raise the limit of processes")
    }
    return handle
  }
}

private final class ThreadStart {
  let name: String
  let work: any ThreadWork

  init(name: String, work: any ThreadWork) { (self.name, self.work) = (name, work) }
}
