import Glibc
import PlatformConformance
import XenNative

/// Runs the checks that every platform has to pass on the Xen that this program runs on; exits with failure if one fails.
@main struct PlatformConformanceProgram {
  static func main() throws {
    let platform = try NativePlatform()
    var failureCount = 0
    for check in PlatformCheck.all {
      // A check that takes the machine down is known by the lines before it.
      defer { fflush(nil) }
      do {
        try check.run(on: platform)
        print("\(check): holds")
      } catch {
        failureCount += 1
        print("\(check): FAILS: \(error)")
      }
    }
    exit(failureCount == 0 ? EXIT_SUCCESS : EXIT_FAILURE)
  }
}
