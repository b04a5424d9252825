import XenPlatform

extension NetIfGrantMapping {
  /// The entry's bytes on the wire.
  var bytes: [UInt8] {
    (0..<4).map { UInt8(truncatingIfNeeded: gref >> UInt32(8 * $0)) }
      + [flags, status].flatMap { [UInt8(truncatingIfNeeded: $0), UInt8(truncatingIfNeeded: $0 >> 8)] }
  }

  /// A copied list, entry by entry. Raw: nothing in them is checked.
  ///
  /// - Parameter bytes: whole entries.
  public static func list(_ bytes: Span<UInt8>) -> [NetIfGrantMapping] {
    precondition(bytes.count % byteCount == 0, "whole entries")
    return (0..<bytes.count / byteCount).map { index in
      var word: UInt64 = 0
      for place in 0..<byteCount { word |= UInt64(bytes[index * byteCount + place]) << UInt64(8 * place) }
      return NetIfGrantMapping(
        gref: GrantReference(rawValue: UInt32(truncatingIfNeeded: word)), flags: UInt16(truncatingIfNeeded: word >> 32),
        status: UInt16(truncatingIfNeeded: word >> 48))
    }
  }

  /// The bytes of a list on the wire.
  public static func bytes(_ list: [NetIfGrantMapping]) -> [UInt8] { list.flatMap(\.bytes) }
}

/// The requests with which a frontend has the pages of its queues mapped, one after the other (io/netif.h, "Static Grants").
/// A backend that maps none, or fewer, copies the others through the hypervisor as before.
public struct NetGrantDialogue: Sendable {
  /// Of each queue.
  private let lists: [[NetIfGrantMapping]]
  /// Of the page that brings a list.
  private let page: GrantReference
  private var queue = 0
  /// How many of the queue's are to be mapped; nil before the backend has said how many it maps.
  private var count: Int?
  /// How many are mapped.
  public private(set) var mappedCount = 0

  public init(mapping lists: [[NetIfGrantMapping]], page: GrantReference) { (self.lists, self.page) = (lists, page) }

  /// What is asked next, and what stands in the page meanwhile; nil at the end.
  public var request: (NetControlRequest, input: [UInt8])? {
    guard queue < lists.count else { return nil }
    guard let count else { return (.getGrantMappingSize(queue: UInt32(queue)), []) }
    return (
      .addGrantMapping(queue: UInt32(queue), page, entryCount: count),
      NetIfGrantMapping.bytes(Array(lists[queue].prefix(count)))
    )
  }

  /// Goes on with the answer to what was asked.
  public mutating func take(_ answer: NetControlAnswer) {
    precondition(queue < lists.count, "nothing was asked")
    if let count {
      if answer.status == .success { mappedCount += count }
      (queue, self.count) = (queue + 1, nil)
    } else if answer.status == .success, answer.data > 0 {
      count = min(lists[queue].count, NetControlRequest.maxGrantListCount, Int(answer.data))
    } else {
      // The others will not be mapped, either.
      queue = lists.count
    }
  }
}
