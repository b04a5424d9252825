/// How long things took, by powers of two of a microsecond. It never allocates.
public struct LatencyHistogram: Hashable, Sendable, CustomStringConvertible {
  /// The first bucket counts what took less than a microsecond, bucket number n what took from 2^(n-1) up to but not
  /// including 2^n microseconds, and the last also everything longer (half an hour and more).
  public static let bucketCount = 32

  private var buckets = InlineArray<32, UInt64>(repeating: 0)

  public init() {}

  /// - Precondition: `bucket` is below ``bucketCount``.
  public func count(in bucket: Int) -> UInt64 { buckets[bucket] }

  public var total: UInt64 { buckets.indices.reduce(0) { $0 &+ buckets[$1] } }

  public mutating func add(nanoseconds: UInt64) {
    let bucket = min(UInt64.bitWidth - (nanoseconds / 1000).leadingZeroBitCount, Self.bucketCount - 1)
    buckets[bucket] &+= 1
  }

  public static func += (left: inout LatencyHistogram, right: LatencyHistogram) {
    for bucket in left.buckets.indices { left.buckets[bucket] &+= right.buckets[bucket] }
  }

  public static func == (left: LatencyHistogram, right: LatencyHistogram) -> Bool {
    left.buckets.indices.allSatisfy { left.buckets[$0] == right.buckets[$0] }
  }

  public func hash(into hasher: inout Hasher) { for bucket in buckets.indices { hasher.combine(buckets[bucket]) } }

  /// One line for each bucket from the first to the last in use: how long it stands for, and how many.
  public var description: String {
    let used = buckets.indices.filter { buckets[$0] > 0 }
    guard let first = used.first, let last = used.last else { return "nothing" }
    return (first...last).map { bucket in
      let upTo = bucket == Self.bucketCount - 1 ? "     longer" : "< \(Self.words(microseconds: 1 << bucket))"
      return "\(upTo)  \(buckets[bucket])"
    }.joined(separator: "\n")
  }

  /// In the largest unit that leaves a whole number or a tenth, nine places wide.
  private static func words(microseconds: Int) -> String {
    let (number, unit) =
      switch microseconds {
      case ..<1000: ("\(microseconds)", "us")
      case ..<1_000_000: (tenths(microseconds / 100), "ms")
      default: (tenths(microseconds / 100_000), "s ")
      }
    return String(repeating: " ", count: max(0, 6 - number.count)) + number + " " + unit
  }

  private static func tenths(_ number: Int) -> String { "\(number / 10).\(number % 10)" }
}
