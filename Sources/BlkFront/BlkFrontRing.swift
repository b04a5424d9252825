import BlkIf
import XenRing

/// Our end of a disk's ring, in either layout: one of the two rings is there.
///
/// Always inlined, because a slot is larger than what is carried in registers: each call more would copy it once more.
struct BlkFrontRing: ~Copyable {
  private let layout: BlkProtocol
  let entryCount: Int
  private var wide: FrontRing<BlkIfRequest, BlkIfResponse>?
  private var narrow: FrontRing<BlkIfX86_32Request, BlkIfX86_32Response>?

  init(initialising region: consuming SharedRegion, as layout: BlkProtocol) {
    self.layout = layout
    switch layout {
    case .x86_64:
      let ring = FrontRing<BlkIfRequest, BlkIfResponse>(initialising: region)
      entryCount = ring.entryCount
      wide = consume ring
      narrow = nil
    case .x86_32:
      let ring = FrontRing<BlkIfX86_32Request, BlkIfX86_32Response>(initialising: region)
      entryCount = ring.entryCount
      wide = nil
      narrow = consume ring
    }
  }

  @inline(__always) var hasUnpushed: Bool {
    switch wide {
    case .some(let ring): ring.hasUnpushed
    case .none:
      switch narrow {
      case .some(let ring): ring.hasUnpushed
      case .none: preconditionFailure("a ring in one of the layouts")
      }
    }
  }

  var statistics: RingStatistics {
    switch wide {
    case .some(let ring): ring.statistics
    case .none:
      switch narrow {
      case .some(let ring): ring.statistics
      case .none: preconditionFailure("a ring in one of the layouts")
      }
    }
  }

  @inline(__always) mutating func put(_ request: BlkIfRequest) {
    switch layout {
    case .x86_64: wide!.put(request)
    case .x86_32: narrow!.put(BlkIfX86_32Request(request))
    }
  }

  @inline(__always) mutating func next() -> BlkIfResponse? {
    switch layout {
    case .x86_64: wide!.next()
    case .x86_32: narrow!.next()?.native
    }
  }

  @inline(__always) mutating func pushAndCheckNotify() -> Bool {
    switch layout {
    case .x86_64: wide!.pushAndCheckNotify()
    case .x86_32: narrow!.pushAndCheckNotify()
    }
  }

  @inline(__always) mutating func available() throws(RingViolation) -> UInt32 {
    switch layout {
    case .x86_64: try wide!.available()
    case .x86_32: try narrow!.available()
    }
  }

  /// Whether a response is there, or the other end says so.
  @inline(__always) var hasUnconsumed: Bool {
    switch wide {
    case .some(let ring): ring.hasUnconsumed()
    case .none:
      switch narrow {
      case .some(let ring): ring.hasUnconsumed()
      case .none: preconditionFailure("a ring in one of the layouts")
      }
    }
  }

  @inline(__always) mutating func finalCheck() throws(RingViolation) -> Bool {
    switch layout {
    case .x86_64: try wide!.finalCheck()
    case .x86_32: try narrow!.finalCheck()
    }
  }

  mutating func finalCheckHoldingOff() throws(RingViolation) -> Bool {
    switch layout {
    case .x86_64: try wide!.finalCheckHoldingOff()
    case .x86_32: try narrow!.finalCheckHoldingOff()
    }
  }
}
