/// When a fault strikes.
public enum Fault: Hashable, Sendable {
  case never
  /// At the next so many occasions, and then never again.
  case next(Int)
  /// At one occasion in so many, a positive number, as the seed of the ``Loopback`` has it; 1: at each.
  case oneIn(Int)

  mutating func strikes(_ random: inout SplitMix64) -> Bool {
    switch self {
    case .never: return false
    case .next(let count):
      self = count > 1 ? .next(count - 1) : .never
      return count > 0
    case .oneIn(let count):
      precondition(count > 0, "one occasion in a positive number of them")
      return Int.random(in: 0..<count, using: &random) == 0
    }
  }
}

/// What may befall events. Xen never loses one, so none of these does.
///
/// What is held back comes with ``Loopback/deliverHeldEvents()``: a ``Scheduler`` that was given the loopback calls it once
/// a round; who runs threads instead calls it himself. Nothing stays held when all faults are set to `.never`.
public struct EventFaults: Hashable, Sendable {
  /// An event is held back. Those that follow it on the same port meanwhile become one with it.
  public var delayed = Fault.never
  /// An event comes at once, and a second time later.
  public var duplicated = Fault.never
  /// An event comes that nobody raised, on some bound port; its occasions are the calls of
  /// ``Loopback/deliverHeldEvents()``.
  public var spurious = Fault.never

  public init() {}
}

/// What may befall grants.
public struct GrantFaults: Hashable, Sendable {
  /// A call of `share` finds no page left, as at the limit of ``LoopbackDomain/sharedPageLimit``.
  public var failedShare = Fault.never
  /// A call of `map` is refused whole, for one of its references.
  public var failedMap = Fault.never
  /// A segment of a `copy` is not copied, and has the status `.generalError`.
  public var failedCopy = Fault.never

  public init() {}
}
