/// Things measured in turns, so that all see the same machine.
public struct Turns {
  /// What each took, round by round.
  public private(set) var figures: [[Double]]

  /// - Parameter rounds: how often each is measured; which of them begins changes from round to round.
  public init(rounds: Int, _ things: [() throws -> Double]) throws {
    figures = things.map { _ in [] }
    for round in 0..<rounds {
      for place in things.indices {
        let index = (place + round) % things.count
        figures[index].append(try things[index]())
      }
    }
  }

  public func least(_ index: Int) -> Double { figures[index].min() ?? .nan }
  public func middle(_ index: Int) -> Double { median(figures[index]) }

  /// What the one took of what the other did, in the median of the rounds.
  public func ratio(_ index: Int, to other: Int) -> Double {
    median(zip(figures[index], figures[other]).map { $0 / $1 })
  }
}

/// Nanoseconds for each of what `body` does, which must be `count`.
public func nanosecondsEach(of count: Int, _ body: () throws -> Int) throws -> Double {
  let start = ContinuousClock.now
  let done = try body()
  let elapsed = ContinuousClock.now - start
  precondition(done == count, "\(done) of \(count) succeeded")
  return elapsed / .nanoseconds(1) / Double(count)
}

/// The middle one, or the upper of the two; not a number of none.
public func median(_ values: [Double]) -> Double { quantile(0.5, of: values) }

/// The value that this part of all is less than, or the largest one.
public func quantile(_ part: Double, of values: [Double]) -> Double {
  let sorted = values.sorted()
  return sorted.isEmpty ? .nan : sorted[min(Int(Double(sorted.count) * part), sorted.count - 1)]
}

extension Double {
  /// With so many digits behind the point.
  public func fixed(_ digits: Int) -> String {
    guard isFinite else { return "-" }
    var scale = 1.0
    for _ in 0..<digits { scale *= 10 }
    let whole = (magnitude * scale).rounded()
    let sign = self < 0 && whole > 0 ? "-" : ""
    guard digits > 0 else { return "\(sign)\(UInt64(whole))" }
    let behind = String(UInt64(whole) % UInt64(scale))
    return "\(sign)\(UInt64(whole) / UInt64(scale)).\(String(repeating: "0", count: digits - behind.count))\(behind)"
  }
}
