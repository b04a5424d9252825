import BlkIf

/// What a disk's bytes live on: the one type that a user of ``BlkBackDriver`` writes.
///
/// Requests of one ``submit(_:to:)`` come in the order in which the guest made them; a store may complete them in any order,
/// at once or later. A barrier always comes alone on its queue: everything before it has completed, and nothing comes after it
/// until it has.
public protocol BlockStore: AnyObject, Sendable {
  /// What the disk is like now, asked when it is connected and whenever somebody calls for ``XenbusDevice/attention``. After
  /// the first time only its sector count may have changed: the guest is then told. Asked on the bus's thread.
  var geometry: BlockGeometry { get }

  /// What one queue of the disk submits to, from a thread of its own. Called once for each queue, each time that the disk is
  /// connected; unless a store says otherwise it is the store itself, which must then be safe to call from several threads.
  func makeQueue() throws(ResourceError) -> any BlockStore

  /// Begins the requests, each of which lies on the disk; completes those that are done already.
  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions)

  /// Completes what has been done since. Never blocks.
  ///
  /// Two queues at work must not have each other's.
  func reap(into completions: inout StoreCompletions)

  /// The queue's frontend has left, and nobody waits for what it still has: it begins nothing more of that, such as the next part of
  /// a large request, which would come over what the next life of the guest has written.
  ///
  /// What it has is completed as ever, done or not. It lives until then, with the requests' memory, and is reaped by a thread of no
  /// frontend's; a second after its frontend's leave at the latest the others go on without it, and its device is not served
  /// again before.
  func abandon()

  /// Readable when ``reap(into:)`` would complete something; nil for a store that completes everything in `submit`.
  var completionDescriptor: CInt? { get }
}

extension BlockStore {
  public func makeQueue() throws(ResourceError) -> any BlockStore { self }
  public func reap(into completions: inout StoreCompletions) {}
  public func abandon() {}
  public var completionDescriptor: CInt? { nil }
}

/// One thing to do to a store.
public struct StoreRequest: Sendable {
  /// A read fills the payload; a write takes its bytes, which need not be on the medium yet when it completes; a barrier
  /// flushes, writes the payload if there is any, and flushes again; a flush has all that completed before on the medium; a
  /// discard, which comes only where the geometry offers it, may lose the sectors' bytes.
  public let kind: BlkRequest.Kind
  /// In 512-byte sectors.
  public let sector: UInt64
  /// In 512-byte sectors: the payload's, or of a discard how much. Zero for a flush.
  public let sectorCount: UInt64
  /// Not to be touched after the request is completed. Others may write it meanwhile, so that it never reads the same for
  /// certain; empty for a flush and a discard.
  public private(set) var payload: SharedPieces
  /// Tells apart what a queue has in flight: below the number of requests that its ring holds.
  public let slot: Int
  /// The queue that it is a request of. Its memory outlives it.
  let owner: ObjectIdentifier

  package init(
    kind: BlkRequest.Kind, sector: UInt64, sectorCount: UInt64, payload: SharedPieces, slot: Int,
    owner: ObjectIdentifier
  ) {
    (self.kind, self.sector, self.sectorCount, self.payload) = (kind, sector, sectorCount, payload)
    (self.slot, self.owner) = (slot, owner)
  }

  /// The same request with its bytes elsewhere, for the store beneath a store: what completes it, completes this one.
  public func with(payload: SharedPieces) -> StoreRequest {
    precondition(payload.byteCount == self.payload.byteCount, "as many bytes")
    var request = self
    request.payload = payload
    return request
  }

  /// In bytes from the disk's start.
  public var offset: UInt64 { sector * UInt64(BlkIf.sectorByteCount) }
}

/// Where a store says what is done. Each request is completed once.
///
/// A store that lies upon another one hands these on, and looks at those that the other has added since.
public struct StoreCompletions: ~Copyable {
  public struct Completion: Sendable {
    /// As the store had it that completed it.
    public let request: StoreRequest
    public let succeeded: Bool

    var slot: Int { request.slot }
  }

  package internal(set) var list: [Completion] = []
  /// Why the first request of those that failed did; taken by whoever reports it.
  package internal(set) var failure: String?
  private let owner: ObjectIdentifier

  package init(owner: ObjectIdentifier, capacity: Int) {
    self.owner = owner
    list.reserveCapacity(capacity)
  }

  /// How many have been completed and not yet answered.
  public var count: Int { list.count }

  /// - Precondition: `index` is below ``count``.
  public subscript(index: Int) -> Completion { list[index] }

  /// - Parameter succeeded: false is reported to the guest as an I/O error of this request.
  public mutating func complete(_ request: StoreRequest, succeeded: Bool = true) {
    guard request.owner == owner else { return }
    list.append(Completion(request: request, succeeded: succeeded))
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
