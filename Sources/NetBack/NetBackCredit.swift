import NetIf

/// How much a guest may send: so many bytes each so many microseconds, by each queue (the backend's key `rate`, in the words
/// that Linux's backend reads: "bytes,microseconds").
struct NetBackRate: BitwiseCopyable, Hashable, Sendable {
  let byteCount: UInt64
  let nanoseconds: UInt64

  /// - Parameter text: two decimal numbers with a comma between, both positive.
  init?(_ text: String) {
    let parts = text.split(separator: ",", omittingEmptySubsequences: false)
    guard parts.count == 2, let bytes = UInt64(parts[0]), let microseconds = UInt32(parts[1]), bytes > 0,
      microseconds > 0
    else { return nil }
    // More than any ring moves in an interval, and far from what 64 bits hold.
    byteCount = min(bytes, 1 << 48)
    nanoseconds = UInt64(microseconds) * 1000
  }
}

extension StoreDirectory {
  /// The key `rate`; nil when there is none, and no limit.
  func rate() throws(DeviceError) -> NetBackRate? {
    guard let text = try optionalString("rate") else { return nil }
    guard let rate = NetBackRate(text) else {
      throw .malformedKey(
        path: path(of: "rate"), value: text, expected: "bytes and microseconds, such as 12500,50000,")
    }
    return rate
  }
}

/// What is left of a rate's bytes, by the clock of the queue's polls.
///
/// A packet is sent while anything is left, and may leave a debt, which what comes next pays off first: so a packet that is
/// longer than the bytes of one interval passes, and over time no more passes than may. What is not used does not add up to
/// more than the bytes of one interval.
struct NetBackCredit: BitwiseCopyable {
  private let rate: NetBackRate
  /// In bytes; below zero a debt.
  private var left: Int64
  /// When the next bytes come; nil before the first poll.
  private var next: UInt64?

  init(_ rate: NetBackRate) {
    self.rate = rate
    left = Int64(rate.byteCount)
  }

  var isUsedUp: Bool { left <= 0 }

  /// When there will be some again; nil while there is.
  var comes: Uptime? {
    guard isUsedUp, let next else { return nil }
    // The first interval that leaves more than nothing.
    let intervals = UInt64(-left) / rate.byteCount
    return Uptime(nanoseconds: next + intervals * rate.nanoseconds)
  }

  /// The bytes of the intervals that have begun.
  mutating func refill(at now: Uptime) {
    guard let next else {
      self.next = now.nanoseconds + rate.nanoseconds
      return
    }
    guard now.nanoseconds >= next else { return }
    let intervals = (now.nanoseconds - next) / rate.nanoseconds + 1
    self.next = next + intervals * rate.nanoseconds
    let full = Int64(rate.byteCount)
    // As many intervals as pay off any debt leave no less than all others.
    let (bytes, overflows) = Int64(clamping: intervals).multipliedReportingOverflow(by: full)
    left = overflows || bytes >= full - left ? full : left + bytes
  }

  mutating func use(_ byteCount: Int) { left -= Int64(byteCount) }
}
