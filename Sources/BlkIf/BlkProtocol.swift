/// The layout of a ring's slots, as the key `protocol` names it (io/protocols.h, `XEN_IO_PROTO_ABI_*`).
public enum BlkProtocol: String, Hashable, Sendable, CaseIterable {
  // The names are the header's.
  /// 64-bit fields aligned to four bytes, as i386 compilers do.
  // swift-format-ignore: AlwaysUseLowerCamelCase
  case x86_32 = "x86_32-abi"
  // swift-format-ignore: AlwaysUseLowerCamelCase
  case x86_64 = "x86_64-abi"

  /// This machine's, and what a frontend without the key speaks.
  public static let native = x86_64

  /// The key as a frontend wrote it.
  ///
  /// - Throws: `.unsupported`, which names the key's path, for a layout that is neither.
  public init(from frontend: StoreDirectory) throws(DeviceError) {
    guard let name = try frontend.optionalString("protocol") else {
      self = .native
      return
    }
    guard let known = Self(rawValue: name) else {
      let names = Self.allCases.map(\.rawValue).joined(separator: " and ")
      throw .unsupported(
        "the frontend's ring layout is \(name.quoted) (\(frontend.path(of: "protocol"))); \(names) are served")
    }
    self = known
  }
}

/// A request slot of the x86-32 layout: 108 bytes, ``BlkIfRequest`` without the padding before its 64-bit fields. Raw:
/// nothing in it is checked.
///
/// The header has no such type: it is `blkif_request` as a 32-bit compiler lays it out.
public struct BlkIfX86_32Request: BitwiseCopyable, Sendable {
  private var operation: UInt8
  private var segmentCount: UInt8
  private var handle: UInt16
  private var id: HalfAligned
  private var sectorNumber: HalfAligned
  private var segments: InlineArray<11, BlkIfSegment>

  public init(_ request: BlkIfRequest) {
    operation = request.operation
    segmentCount = request.segmentCount
    handle = request.handle
    id = HalfAligned(request.id)
    sectorNumber = HalfAligned(request.sectorNumber)
    segments = request.segments
  }

  /// The same in the layout that the drivers work with.
  public var native: BlkIfRequest {
    BlkIfRequest(
      operation: operation, segmentCount: segmentCount, handle: handle, id: id.value, sectorNumber: sectorNumber.value,
      segments: segments)
  }
}

/// A response slot of the x86-32 layout: 12 bytes. Raw: nothing in it is checked.
public struct BlkIfX86_32Response: BitwiseCopyable, Sendable {
  private var id: HalfAligned
  private var operation: UInt8
  private var padding: UInt8 = 0
  private var status: Int16

  public init(_ response: BlkIfResponse) {
    id = HalfAligned(response.id)
    operation = response.operation
    status = response.status
  }

  /// The same in the layout that the drivers work with.
  public var native: BlkIfResponse { BlkIfResponse(id: id.value, operation: operation, status: status) }
}

/// Eight bytes that are aligned to four.
private struct HalfAligned: BitwiseCopyable {
  let low: UInt32
  let high: UInt32

  init(_ value: UInt64) { (low, high) = (UInt32(truncatingIfNeeded: value), UInt32(truncatingIfNeeded: value >> 32)) }

  var value: UInt64 { UInt64(high) << 32 | UInt64(low) }
}
