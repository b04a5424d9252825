import BlkIf

/// What a disk's bytes live on: the one type that a user of ``BlkBackDriver`` writes.
///
/// Each queue of a disk calls it from its own thread, so it must be safe to call from several. Requests of one
/// ``submit(_:to:)`` come in the order in which the guest made them; a store may complete them in any order, at once or
/// later. A barrier always comes alone: everything before it has completed, and nothing comes after it until it has.
public protocol BlockStore: AnyObject, Sendable {
  /// Does not change while the store serves.
  var geometry: BlockGeometry { get }

  /// Begins the requests, each of which lies on the disk and within its buffer; completes those that are done already.
  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions)

  /// Completes what has been done since. Never blocks.
  ///
  /// What a queue was given up with, because it was not completed within a second of its frontend's leave, may be completed
  /// to the completions of any later one: it is forgotten there. Two queues at work must not have each other's.
  func reap(into completions: inout StoreCompletions)

  /// Readable when ``reap(into:)`` would complete something; nil for a store that completes everything in `submit`.
  var completionDescriptor: CInt? { get }
}

extension BlockStore {
  public func reap(into completions: inout StoreCompletions) {}
  public var completionDescriptor: CInt? { nil }
}

/// One thing to do to a store.
public struct StoreRequest: Sendable {
  /// A read fills the buffer; a write takes its bytes, which need not be on the medium yet when it completes; a barrier
  /// flushes, writes the buffer if there is any, and flushes again; a flush has all that completed before on the medium.
  public let kind: BlkRequest.Kind
  /// In 512-byte sectors.
  public let sector: UInt64
  /// Ours alone until the request is completed, and not to be touched after; empty for a flush.
  public let buffer: SharedBytes
  let slot: Int
  /// The buffers of the queue that it is a request of. They outlive it.
  let owner: ObjectIdentifier

  /// In bytes from the disk's start.
  public var offset: UInt64 { sector * UInt64(BlkIf.sectorByteCount) }
}

/// Where a store says what is done. Each request is completed once.
public struct StoreCompletions: ~Copyable {
  struct Completion {
    let slot: Int
    let succeeded: Bool
  }

  var list: [Completion] = []
  /// Why the first request of those that failed did; taken by whoever reports it.
  var failure: String?
  private let owner: ObjectIdentifier

  init(owner: ObjectIdentifier, capacity: Int) {
    self.owner = owner
    list.reserveCapacity(capacity)
  }

  /// - Parameter succeeded: false is reported to the guest as an I/O error of this request.
  public mutating func complete(_ request: StoreRequest, succeeded: Bool = true) {
    guard request.owner == owner else { return }
    list.append(Completion(slot: request.slot, succeeded: succeeded))
    if !succeeded, failure == nil { failure = "the store failed a \(request.kind) at sector \(request.sector)" }
  }

  /// Completes the request as failed, for a reason that the device's log and error node give the first time that its store
  /// fails anything.
  ///
  /// - Parameter reason: a sentence's beginning, such as "the image has become shorter than the disk".
  public mutating func fail(_ request: StoreRequest, because reason: @autoclosure () -> String) {
    if failure == nil, request.owner == owner {
      failure = "\(reason()): a \(request.kind) at sector \(request.sector) failed"
    }
    complete(request, succeeded: false)
  }
}
