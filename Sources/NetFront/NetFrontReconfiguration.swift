import NetIf

/// How much room a backend leaves before the frames that arrive, and how far it is with what we want (`xdp-headroom`, io/netif.h
/// as Linux has it): a new value is written with Reconfiguring, the backend says Reconfigured when it has looked, we say
/// Connected, and so does the backend.
struct NetFrontReconfiguration {
  enum Action: Hashable {
    case none
    /// Write the key and Reconfiguring in one transaction.
    case begin(headroomByteCount: Int)
    /// Write Connected.
    case finish
  }

  private enum Phase { case settled, asked, finishing }

  private var phase = Phase.settled
  /// What the card wants, what the backend has been told last, and what it has said that it has seen.
  var wanted = 0
  private var told = 0
  private(set) var agreed = 0

  /// A connection begins: the backend reads the key then.
  mutating func connect() { (phase, told, agreed) = (.settled, wanted, wanted) }

  mutating func disconnect() { (phase, agreed) = (.settled, 0) }

  /// What is to be done while connected, now that the backend's key says `backend`.
  mutating func observe(backend: XenbusState) -> Action {
    switch phase {
    // Its Reconfigured of the time before must not be taken for that of the next one.
    case .settled where wanted != told && backend == .connected:
      (phase, told) = (.asked, wanted)
      return .begin(headroomByteCount: wanted)
    case .asked where backend == .reconfigured:
      (phase, agreed) = (.finishing, told)
      return .finish
    case .finishing where backend == .connected:
      phase = .settled
      return observe(backend: backend)
    case .settled, .asked, .finishing: return .none
    }
  }
}
