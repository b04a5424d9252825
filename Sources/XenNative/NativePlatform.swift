#if canImport(CXen)
  import CXen
  import Glibc
  import XenPlatform

  /// The domain that this process runs in, on a real Xen, through libxenstore, libxengnttab and libxenevtchn.
  ///
  /// It opens the kernel's devices itself, so the process needs the right to: in the control domain, that is root.
  public final class NativePlatform: Platform {
    public let domain: DomainID
    public let grants: any GrantTable

    /// - Throws: ``NativePlatformError`` with what to do about it, when this is no Xen domain or a device is missing.
    public init() throws(NativePlatformError) {
      grants = try NativeGrantTable()
      // Whoever serves or uses a device needs this too: better to hear of it now than when the first queue starts.
      _ = try NativeEventChannels()
      let store = try NativeXenstore()
      domain = try Self.ownDomain(in: store)
    }

    public func openEventChannels() throws(EventChannelError) -> any EventChannels {
      do throws(NativePlatformError) { return try NativeEventChannels() } catch {
        throw .system(call: "cannot open event channels", reason: error.description)
      }
    }

    public func openXenstore() throws(XenstoreError) -> any Xenstore {
      do throws(NativePlatformError) { return try NativeXenstore() } catch {
        throw XenstoreError(.system(error.description), "open", "")
      }
    }

    /// A control domain that no toolstack has set up yet has no such key; every other domain is given one when it is built.
    private static func ownDomain(in store: NativeXenstore) throws(NativePlatformError) -> DomainID {
      let key = "domid"
      do throws(XenstoreError) {
        let text = String(decoding: try store.read(key, in: nil), as: UTF8.self)
        guard let number = UInt16(text) else { throw XenstoreError(.invalid, "read", key) }
        return DomainID(rawValue: number)
      } catch {
        if error.code == .notFound { return .zero }
        throw .system(call: "cannot learn this domain's number", reason: error.description)
      }
    }
  }
#endif
