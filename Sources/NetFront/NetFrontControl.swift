import NetIf
import XenRing

/// How far the wish for hashing has come that a frontend has told its backend (``NetFrontDevice/setHashing(_:)``).
public enum NetFrontHashing: Hashable, Sendable {
  /// Nothing was asked for: the backend is free to choose each packet's queue.
  case unset
  /// It is asked for as soon as a backend is connected, or under way.
  case pending(NetHashConfiguration)
  /// It holds for every packet that comes from now on, until the backend goes away: then it is asked for again.
  case set(NetHashConfiguration)
  /// The backend cannot, and is free to choose.
  case failed(NetHashConfiguration, NetHashFault)

  /// What was asked for.
  var wish: NetHashConfiguration? {
    switch self {
    case .unset: nil
    case .pending(let configuration), .set(let configuration), .failed(let configuration, _): configuration
    }
  }

  /// What was asked for last has been answered.
  mutating func end(with result: Result<NetHashConfiguration, NetHashFault>) {
    guard let wish else { return }
    switch result {
    case .success: self = .set(wish)
    case .failure(let fault): self = .failed(wish, fault)
    }
  }
}

/// The control ring of a connection (io/netif.h, "Control ring"): one request at a time, each of a dialogue.
final class NetFrontControl {
  /// One that is shared with the backend.
  private final class Page {
    private let pages: GrantedPages

    init(_ pages: consuming GrantedPages) { self.pages = pages }

    var reference: GrantReference { pages.references[0] }
    var bytes: SharedBytes { pages.bytes }
  }

  private var ring: FrontRing<NetIfControlRequest, NetIfControlResponse>
  /// Of the ring's page.
  private let ringReference: GrantReference
  /// What brings a request's input; the backend only reads it.
  private let input: Page
  /// What brings a list of grants; nil where none are to be mapped.
  private let list: Page?
  private let port: EventChannelPort
  private var inFlight: NetIfControlRequest?
  private var nextID: UInt16 = 0
  /// What is under way: mapping, or hashing.
  private var mapping: NetGrantDialogue?
  private var dialogue: NetHashDialogue?
  /// What is asked for when the dialogue under way has ended.
  private var following: NetHashConfiguration?

  /// - Parameters:
  ///   - events: gets a channel for it.
  ///   - staticGrants: whether pages are to be mapped by the backend.
  init(_ device: XenbusDevice, _ events: inout NetFrontEvents, staticGrants: Bool) throws(DeviceError) {
    let page = try device.share(pageCount: 1)
    input = Page(try device.share(pageCount: 1, writable: false))
    list = staticGrants ? Page(try device.share(pageCount: 1)) : nil
    ringReference = page.references[0]
    ring = FrontRing(initialising: page.takeRegion())
    port = try events.addControl()
  }

  /// What tells the backend of the ring.
  var entries: [StoreEntry] {
    [StoreEntry("ctrl-ring-ref", ringReference.rawValue), StoreEntry("event-channel-ctrl", port.rawValue)]
  }

  /// Whether an answer is waited for.
  var isAsking: Bool { inFlight != nil }

  /// Begins to ask for hashing, or does so when what was asked for before has been answered.
  ///
  /// - Returns: whether the backend is to be notified.
  func begin(_ configuration: NetHashConfiguration) -> Bool {
    guard dialogue == nil, mapping == nil else {
      following = configuration
      return false
    }
    dialogue = NetHashDialogue(setting: configuration, page: input.reference)
    return ask()
  }

  /// Begins to have pages mapped, before anything else is asked.
  ///
  /// - Parameter lists: of each queue.
  /// - Returns: whether the backend is to be notified.
  func begin(mapping lists: [[NetIfGrantMapping]]) -> Bool {
    precondition(inFlight == nil, "the first thing that is asked")
    guard let list else { return false }
    mapping = NetGrantDialogue(mapping: lists, page: list.reference)
    return ask()
  }

  /// How many pages the backend has mapped.
  private(set) var mappedGrantCount = 0

  /// Puts the next request of what is under way.
  private func ask() -> Bool {
    if let (request, bytes) = mapping?.request {
      list?.bytes.copy(from: bytes.span)
      return put(request)
    }
    guard let (request, bytes) = dialogue?.request else { return false }
    input.bytes.copy(from: bytes.span)
    return put(request)
  }

  private func put(_ request: NetControlRequest) -> Bool {
    let raw = request.slot(id: nextID)
    (inFlight, nextID) = (raw, nextID &+ 1)
    ring.put(raw)
    return ring.pushAndCheckNotify()
  }

  /// What a poll has come to.
  struct Progress {
    /// Whether the backend is to be notified.
    var notifies = false
    /// How the last dialogue ended; nil when it has not.
    var result: Result<NetHashConfiguration, NetHashFault>?
  }

  /// Takes the answer that is there, and goes on with the next request.
  func poll() throws(DeviceError) -> Progress {
    var progress = Progress()
    guard inFlight != nil else { return progress }
    while try hasResponses() {
      while let response = ring.next() { try take(response, &progress) }
    }
    return progress
  }

  private func take(_ response: NetIfControlResponse, _ progress: inout Progress) throws(DeviceError) {
    guard let request = inFlight else { preconditionFailure("the ring has no more responses than requests") }
    let answer: NetControlAnswer
    do throws(NetControlViolation) { answer = try NetControlAnswer(parsing: response, to: request) } catch {
      throw .protocolViolation("\(error)")
    }
    inFlight = nil
    if mapping != nil {
      mapping?.take(answer)
      mappedGrantCount = mapping?.mappedCount ?? 0
      if mapping?.request == nil {
        mapping = nil
        beginFollowing()
      }
    } else {
      dialogue?.take(answer)
      if let result = dialogue?.result {
        dialogue = nil
        if following == nil { progress.result = result }
        beginFollowing()
      }
    }
    if ask() { progress.notifies = true }
  }

  private func beginFollowing() {
    guard let next = following.take() else { return }
    dialogue = NetHashDialogue(setting: next, page: input.reference)
  }

  private func hasResponses() throws(DeviceError) -> Bool {
    do throws(RingViolation) { return try ring.finalCheck() } catch {
      throw .protocolViolation("\(NetRingViolation(.control, error))")
    }
  }
}
