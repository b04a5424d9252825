import NetIf
import Synchronization

/// What the queues of a connection have in common.
struct NetBackConnection {
  let frontend: DomainID
  /// What a queue copies through: one for all, or each queue's own.
  var grants: any GrantTable
  /// What the frontend was offered.
  let offered: NetFeatures
  /// What may be given to it.
  let takes: NetGuestAgreement
  let groups: NetBackGroups
  /// What the control ring has set.
  let steering: NetBackSteering
  let headroom: NetBackHeadroom
  /// How much each queue may send; nil without a limit.
  let rate: NetBackRate?
  /// Told once, of the first packet that is refused.
  let refusal: FirstFault<NetTxPacketFault>
}

/// What a frontend takes, as far as it concerns what it is given.
struct NetGuestAgreement: BitwiseCopyable, Hashable, Sendable {
  /// Frames of several slots.
  var scatterGather: Bool
  /// Frames with a blank checksum, and such that are to be cut.
  var offloads: NetOffloads
  /// Hashes: it has a control ring.
  var hashes: Bool
  /// It notifies of receive requests, so that frames need not be looked after meanwhile.
  var notifies: Bool
}

/// How many bytes are left free before each frame in its first page (`xdp-headroom`): written by the bus's thread, read by
/// the queues'.
final class NetBackHeadroom: Sendable {
  /// So many leave a page with an Ethernet header in it.
  static let maxByteCount = xenPageSize - NetIf.headerByteCount

  private let value = Atomic<Int>(0)

  var byteCount: Int {
    get { value.load(ordering: .relaxed) }
    set { value.store(newValue, ordering: .relaxed) }
  }
}

/// Which groups of receivers a frontend listens to (io/netif.h, "feature-multicast-control").
///
/// Any of its queues may bring a word about it, and all of them go by it; each frame is compared with a copy that its queue
/// takes anew when there is another one.
final class NetBackGroups: Sendable {
  /// As many as Linux's backend keeps.
  static let maxCount = 64

  private let list = Mutex<[MACAddress]>([])
  private let version = Atomic<Int>(0)
  private let filters = Atomic(false)

  /// Whether the frontend wants only the groups that it listens to (`request-multicast-control`), and not all.
  var isFiltering: Bool {
    get { filters.load(ordering: .relaxed) }
    set { filters.store(newValue, ordering: .relaxed) }
  }

  /// Goes by what the frontend says of a group. To say the same twice does no harm.
  ///
  /// - Returns: why it cannot.
  func follow(_ word: NetExtraInfo) -> NetTxPacketFault? {
    list.withLock { list in
      switch word {
      case .addMulticast(let group):
        guard !list.contains(group) else { return nil }
        guard list.count < Self.maxCount else { return .tooManyGroups(group) }
        list.append(group)
      case .removeMulticast(let group): list.removeAll { $0 == group }
      case .segmentation, .hash, .headroom: preconditionFailure("no word about a group")
      }
      version.add(1, ordering: .releasing)
      return nil
    }
  }

  /// Brings a copy of the list up to date.
  func refresh(_ copy: inout [MACAddress], _ copiedVersion: inout Int) {
    guard version.load(ordering: .acquiring) != copiedVersion else { return }
    list.withLock { list in
      copy = list
      copiedVersion = version.load(ordering: .relaxed)
    }
  }
}
