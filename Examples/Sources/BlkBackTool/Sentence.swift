import BlkBack

extension BlkBackStatistics {
  /// What a disk has done, in one line.
  public var sentence: String {
    "\(readRequests) reads of \(sectorsRead) sectors, \(writeRequests) writes of \(sectorsWritten) sectors, "
      + "\(barrierRequests) of them barriers, \(flushRequests) flushes, \(discardRequests) discards, "
      + "\(failedRequests) failed, \(waitedRequests) waited; "
      + "notified \(ring.notificationsSent) times, spared \(ring.notificationsSuppressed)"
  }
}
