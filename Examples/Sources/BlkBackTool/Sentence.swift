import BlkBack
import BlockStores

extension BlkBackStatistics {
  /// What a disk has done, in one line.
  public var sentence: String {
    "\(readRequests) reads of \(sectorsRead) sectors, \(writeRequests) writes of \(sectorsWritten) sectors, "
      + "\(barrierRequests) of them barriers, \(flushRequests) flushes, \(discardRequests) discards, "
      + "\(failedRequests) failed, \(waitedRequests) waited; "
      + "notified \(ring.notificationsSent) times, spared \(ring.notificationsSuppressed)"
  }
}

extension FileStore {
  /// How it reads and writes its image, in a few words.
  public var access: String {
    let ring = usesIOUring ? "with io_uring" : "with a system call a request"
    return "the image is read and written \(ring), \(isDirect ? "past" : "through") the page cache"
      + (fallbackReason.map { "; there is no \($0)" } ?? "")
  }
}
