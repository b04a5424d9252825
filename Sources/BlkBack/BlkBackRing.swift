import BlkIf
import XenRing

/// Our end of a disk's ring, in the layout that the frontend chose: one of the two rings is there.
///
/// Always inlined, because a slot is larger than what is carried in registers: each call more would copy it once more.
struct BlkBackRing: ~Copyable {
  private let layout: BlkProtocol
  let entryCount: Int
  private var wide: BackRing<BlkIfRequest, BlkIfResponse>?
  private var narrow: BackRing<BlkIfX86_32Request, BlkIfX86_32Response>?

  /// - Parameter index: zero for a fresh ring; for a live one, where it goes on.
  init(attaching region: consuming SharedRegion, as layout: BlkProtocol, at index: RingIndex) {
    self.layout = layout
    switch layout {
    case .x86_64:
      let ring = BackRing<BlkIfRequest, BlkIfResponse>(attaching: region, at: index)
      entryCount = ring.entryCount
      wide = consume ring
      narrow = nil
    case .x86_32:
      let ring = BackRing<BlkIfX86_32Request, BlkIfX86_32Response>(attaching: region, at: index)
      entryCount = ring.entryCount
      wide = nil
      narrow = consume ring
    }
  }

  /// A ring whose backend was killed.
  ///
  /// - Parameter consumed: up to where it had taken requests.
  init(
    takingUp region: consuming SharedRegion, as layout: BlkProtocol, requestsConsumed consumed: RingIndex
  ) throws(RingViolation) {
    self.layout = layout
    switch layout {
    case .x86_64:
      let ring = try BackRing<BlkIfRequest, BlkIfResponse>(takingUp: region, requestsConsumed: consumed)
      entryCount = ring.entryCount
      wide = consume ring
      narrow = nil
    case .x86_32:
      let ring = try BackRing<BlkIfX86_32Request, BlkIfX86_32Response>(takingUp: region, requestsConsumed: consumed)
      entryCount = ring.entryCount
      wide = nil
      narrow = consume ring
    }
  }

  /// How many slots a ring of so many pages has.
  static func entryCount(pageCount: Int, as layout: BlkProtocol) -> Int {
    let stride =
      switch layout {
      case .x86_64: RingLayout.stride(BlkIfRequest.self, BlkIfResponse.self)
      case .x86_32: RingLayout.stride(BlkIfX86_32Request.self, BlkIfX86_32Response.self)
      }
    return RingLayout.entryCount(byteCount: pageCount * xenPageSize, stride: stride)
  }

  /// Of the next request to take, and of the next response to put.
  @inline(__always) var requestIndex: RingIndex {
    switch wide {
    case .some(let ring): ring.requestIndex
    case .none:
      switch narrow {
      case .some(let ring): ring.requestIndex
      case .none: preconditionFailure("a ring in one of the layouts")
      }
    }
  }

  @inline(__always) var responseIndex: RingIndex {
    switch wide {
    case .some(let ring): ring.responseIndex
    case .none:
      switch narrow {
      case .some(let ring): ring.responseIndex
      case .none: preconditionFailure("a ring in one of the layouts")
      }
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

  var dump: String {
    switch wide {
    case .some(let ring): ring.dump()
    case .none:
      switch narrow {
      case .some(let ring): ring.dump()
      case .none: preconditionFailure("a ring in one of the layouts")
      }
    }
  }

  /// Where both requests and responses go on, once every request is answered.
  var index: RingIndex {
    switch wide {
    case .some(let ring): ring.index
    case .none:
      switch narrow {
      case .some(let ring): ring.index
      case .none: preconditionFailure("a ring in one of the layouts")
      }
    }
  }

  @inline(__always) mutating func available() throws(RingViolation) -> UInt32 {
    switch layout {
    case .x86_64: try wide!.available()
    case .x86_32: try narrow!.available()
    }
  }

  @inline(__always) mutating func put(_ response: BlkIfResponse) {
    switch layout {
    case .x86_64: wide!.put(response)
    case .x86_32: narrow!.put(BlkIfX86_32Response(response))
    }
  }

  @inline(__always) mutating func next() -> BlkIfRequest? {
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

  @inline(__always) mutating func finalCheck() throws(RingViolation) -> Bool {
    switch layout {
    case .x86_64: try wide!.finalCheck()
    case .x86_32: try narrow!.finalCheck()
    }
  }
}
