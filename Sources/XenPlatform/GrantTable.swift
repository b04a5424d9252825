/// What a domain can do with grants (xen/include/public/grant_table.h), as userspace gets them.
///
/// Unprivileged userspace cannot grant memory that it already has: the kernel hands out memory and references together.
/// So the verb is *share*, and drivers work from pages that they shared once.
public protocol GrantTable: AnyObject, Sendable {
  /// New zeroed pages of ours that `domain` may map or copy. They cease to be shared when the result's region ends.
  ///
  /// - Parameters:
  ///   - pageCount: positive.
  ///   - writable: whether `domain` may write them as well.
  func share(pageCount: Int, with domain: DomainID, writable: Bool) throws(GrantError) -> GrantedPages

  /// Maps what `domain` granted us, in this order, as one contiguous region; it is unmapped when the region ends.
  /// One bad reference fails the whole call, and then nothing stays mapped.
  ///
  /// - Parameter references: not empty; the other end's numbers, taken as they are.
  func map(_ references: [GrantReference], of domain: DomainID, writable: Bool) throws(GrantError) -> SharedRegion

  /// Copies between memory that is ours and pages that others granted us, and sets each copy's `status`; one that fails
  /// leaves the others alone (`GNTTABOP_copy`). Call it once a batch. It neither throws nor allocates.
  func copy(_ copies: inout MutableSpan<GrantCopy>)
}

/// Pages shared with another domain, and the references that name them over there, in order.
public struct GrantedPages: ~Copyable, Sendable {
  public let references: [GrantReference]
  private let region: SharedRegion

  public init(region: consuming SharedRegion, references: [GrantReference]) {
    precondition(references.count * xenPageSize == region.byteCount, "one reference a page")
    self.region = region
    self.references = references
  }

  /// The pages' bytes. Valid no longer than the pages are shared.
  public var bytes: SharedBytes { region.bytes }

  /// The region without its references, for a ring to take over.
  public consuming func takeRegion() -> SharedRegion { region }
}

/// One segment of a grant copy (`gnttab_copy`): within one granted page, in one direction.
@safe public struct GrantCopy: BitwiseCopyable, @unchecked Sendable {
  /// Which way the bytes go.
  public enum Direction: BitwiseCopyable, Sendable { case fromGrant, toGrant }

  @unsafe public var local: UnsafeMutableRawPointer
  public var reference: GrantReference
  public var domain: DomainID
  /// Bytes from the start of the granted page; the platform refuses what leaves the page.
  public var offset: UInt16
  /// Bytes to copy, at most a page.
  public var count: UInt16
  public var direction: Direction
  /// Set by the platform.
  public var status: GrantStatus

  /// A copy between all of `local`, at most a page, and the page that `reference` names.
  public init(
    _ direction: Direction, local: SharedBytes, reference: GrantReference, of domain: DomainID, offset: UInt16
  ) {
    precondition(local.count <= xenPageSize, "a copy stays within one page")
    unsafe self.local = local.baseAddress
    self.reference = reference
    self.domain = domain
    self.offset = offset
    count = UInt16(local.count)
    self.direction = direction
    status = .generalError
  }
}

/// How one grant operation ended (`GNTST_*`, grant_table.h).
public struct GrantStatus: RawRepresentable, Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
  public let rawValue: Int16

  @inlinable public init(rawValue: Int16) { self.rawValue = rawValue }

  @inlinable public static var okay: GrantStatus { GrantStatus(rawValue: 0) }
  /// Most refusals: the reference names no grant, one to somebody else, or one that may only be read.
  @inlinable public static var generalError: GrantStatus { GrantStatus(rawValue: -1) }
  @inlinable public static var badDomain: GrantStatus { GrantStatus(rawValue: -2) }
  /// The reference lies outside the other domain's grant table.
  @inlinable public static var badReference: GrantStatus { GrantStatus(rawValue: -3) }
  @inlinable public static var permissionDenied: GrantStatus { GrantStatus(rawValue: -8) }
  @inlinable public static var badCopyArgument: GrantStatus { GrantStatus(rawValue: -10) }

  public var description: String {
    switch self {
    case .okay: "okay"
    case .generalError: "the reference names no grant to us, or none for this use"
    case .badDomain: "no such domain"
    case .badReference: "the reference lies outside the grant table"
    case .permissionDenied: "the grant does not permit it"
    case .badCopyArgument: "the copy leaves the granted page"
    default: "grant operation failed (\(rawValue))"
    }
  }
}

/// Why a grant could not be made or mapped.
@nonexhaustive public enum GrantError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The other end named a reference that it never granted to us, or not in this way.
  case refused(GrantReference, of: DomainID, GrantStatus)
  /// No pages or references are left to share; `advice` says which limit to raise.
  case exhausted(pageCount: Int, advice: String)
  /// A call of the platform failed for another reason.
  case system(call: String, reason: String)

  /// xen-gntalloc, which shares pages for userspace, has given out as many as it may (ENOSPC).
  public static func gntallocLimit(pageCount: Int) -> GrantError {
    .exhausted(
      pageCount: pageCount,
      advice: "raise /sys/module/xen_gntalloc/parameters/limit (1024 pages for all processes unless set), "
        + "or start Xen with a larger gnttab_max_frames")
  }

  public var description: String {
    switch self {
    case .refused(let reference, let domain, let status): "cannot map \(reference) of \(domain): \(status)"
    case .exhausted(let pageCount, let advice): "cannot share \(pageCount) more pages: \(advice)"
    case .system(let call, let reason): "\(call): \(reason)"
    }
  }
}
